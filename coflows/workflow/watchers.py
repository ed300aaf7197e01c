"""Who is told how a run goes."""

from __future__ import annotations

from collections.abc import Callable

from coflows.workflow.graph.value import Graph

Watcher = Callable[[Graph], None]
"""Called with the graph after each change, in order, by whichever thread made it; ``graph.delta`` is what changed. The
run waits meanwhile: note it and return."""
