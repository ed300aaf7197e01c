"""One delivery while it is worked off, and where it came from."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Protocol

from coflows.broker.base import Delivery
from coflows.dispatch.lease import Lease
from coflows.model.wire import Call, Recall
from coflows.session import Incoming


class Source(Protocol):
    """The queue that jobs come from, as the runner sees it."""

    @property
    def lease(self) -> Lease | None:
        """The lease of the partition; None for the queue of parallel endpoints."""

    def settled(self, job: Job) -> None:
        """The job's delivery is settled, or given up."""

    def start_over(self) -> None:
        """Something went wrong: give all that is unsettled back in order, and begin again."""


@dataclass(eq=False, slots=True)
class Job:
    """A message to an instance, opened and checked. ``epoch`` is that of the partition's lease when it started."""

    delivery: Delivery
    incoming: Incoming
    payload: Call | Recall
    source: Source
    epoch: int | None = None
    go_on: threading.Event = field(default_factory=threading.Event)
