"""A batch while it is worked off."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from coflows.dispatch.batch import Batch
from coflows.dispatch.draft import Draft
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loaded
from coflows.dispatch.turn import Turn


@dataclass(eq=False, slots=True)
class Work:
    """A batch while it is worked off. ``job`` is the one whose turn it is; ``again`` is to be begun again, in order."""

    batch: Batch[Job]
    draft: Draft = field(default_factory=Draft)
    job: Job | None = None
    since: float = 0.0
    """When its turn began, by the monotonic clock."""
    turn: Turn | None = None
    """The turn, from when its flow has the message until it is over: it refers to this, and would keep its message."""
    loaded: dict[str, Loaded] = field(default_factory=dict)
    """The flows that its turns run on, which it has for itself."""
    go_on: threading.Event | None = None
    """Set when it may go on after it has waited."""
    waiting: int = 0
    """Threads of its turn that wait for something."""
    again: list[Job] = field(default_factory=list)
