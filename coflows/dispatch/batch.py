"""Jobs that are begun one after the other and end together, and what admission tells of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)

MAX_BATCH = 64
"""Jobs."""
UNLIMITED = ""
"""The caller whose jobs may hold all slots: the owner himself."""


@dataclass(eq=False, slots=True)
class Batch(Generic[Job]):
    """Jobs that are begun one after the other: the lanes that it has, and the one it is in. ``open`` while it may begin
    more."""

    lanes: set[str] = field(default_factory=set)
    lane: str = ""
    begun: int = 0
    open: bool = True
    caller: str = UNLIMITED
    """Whose job was begun last."""
    counts: bool = False
    """Whether that counts among the jobs of his that hold a slot."""
    left: deque[str] = field(default_factory=deque)
    """Lanes of it that have more, left for other callers' for now."""


@dataclass(frozen=True, slots=True)
class Start(Generic[Job]):
    """Begin jobs for this batch now."""

    batch: Batch[Job]


@dataclass(frozen=True, slots=True)
class Resume(Generic[Job]):
    """Let this paused batch go on now."""

    batch: Batch[Job]


Commands = list[Start[Job] | Resume[Job]]
