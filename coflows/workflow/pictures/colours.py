"""The colours of process states in pictures."""

from __future__ import annotations

from typing import NamedTuple

from coflows.workflow.graph.states import ProcessState


class Colour(NamedTuple):
    """Of a node: inside, border, label."""

    fill: str
    line: str
    text: str


COLOURS = {
    ProcessState.WAITING: Colour("#f1f5f9", "#94a3b8", "#334155"),
    ProcessState.RUNNING: Colour("#dbeafe", "#2563eb", "#1e3a8a"),
    ProcessState.SUCCESS: Colour("#dcfce7", "#16a34a", "#14532d"),
    ProcessState.FAILED: Colour("#fee2e2", "#dc2626", "#7f1d1d"),
    ProcessState.CANCELLED: Colour("#f3e8ff", "#9333ea", "#581c87"),
    ProcessState.SKIPPED: Colour("#ffffff", "#cbd5e1", "#94a3b8"),
    ProcessState.UPSTREAM_FAILED: Colour("#ffedd5", "#ea580c", "#7c2d12"),
}
