"""One message while it is worked off, and the delivery that it came in."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from coflows.broker.base import Delivery
from coflows.dispatch.lease import Lease
from coflows.dispatch.parking import Claim
from coflows.errors import CoflowsError
from coflows.model.calls import Call
from coflows.opened import Queue
from coflows.parcel import Parcel
from coflows.quotas.accounts import Account
from coflows.quotas.quota import Quota
from coflows.session import Incoming
from coflows.store.base import Entry


class Source(Queue, Protocol):
    """The queue that jobs come from, as the runner sees it. ``Runner.go_on`` is called when it is full no more."""

    @property
    def lease(self) -> Lease | None:
        """The lease of the partition; None for the queue of parallel endpoints."""

    def defer(self, delivery: Delivery) -> bool:
        """Whether too much is in hand: the source gives the delivery to the runner again later, or it goes back."""

    def track(self, jobs: Iterable[Job]) -> bool:
        """The jobs are to be worked off; False when nothing new is taken."""

    def gives_back(self, job: Job) -> bool:
        """Whether the job's delivery goes back, or has gone: its turn must not begin any more. What came before it may
        have been given up, and would come too late after it."""

    def settled(self, jobs: Iterable[Job]) -> None:
        """The jobs' deliveries are settled, or given up."""

    def start_over(self) -> None:
        """Something went wrong: give all that is unsettled back in order, and begin again."""


@dataclass(eq=False, slots=True)
class Job:
    """A message to an instance, opened and checked. ``epoch`` is that of the partition's lease under which it was
    taken; ``done`` and ``metadata`` are what the store had then."""

    parcel: Parcel | None
    """None once its delivery is settled."""
    incoming: Incoming
    payload: Call
    source: Source
    key: tuple[str, str, str]
    """What makes it the same message: who sent it, to which instance, and its id."""
    epoch: int | None = None
    done: Entry | None = None
    metadata: Entry | None = None
    fresh: bool = True
    """Whether ``done`` and ``metadata`` are to be relied on."""
    lane: str = ""
    again: bool = False
    """Whether it was delivered before: its worker may have died over it."""
    held: bool = True
    """Whether the lease was this worker's when the store was read."""
    late: bool = False
    twin: bool = False
    """Whether the same message is being worked off already."""
    elsewhere: bool = False
    """Whether another worker has it, parked."""
    twins: list[Job] = field(default_factory=list)
    """The same message, come again meanwhile."""
    cancelled: bool = False
    on_cancel: Callable[[], None] | None = None
    letter: str | None = None
    """The dead letter that it is, replayed."""
    parked: Claim | None = None
    """Its record, once it is parked; its delivery is settled then."""
    timer: Claim | None = None
    """Its timer, when it is the message of one."""
    stranger: bool = False
    """Whether there is no such instance, or not for its sender: it is refused, in no order, and runs in no turn."""
    charged: str | None = None
    """The mark that it was paid for, by a grant."""
    caller: str = ""
    """Whose turn it takes: its sender's, if he is not the owner himself."""
    account: Account | None = None
    """Where it counts as in hand, with the limits of ``quota``; None: nowhere."""
    quota: Quota | None = None
    ended_by: CoflowsError | None = None
    """Why the runtime has ended its turn, whatever comes of it."""

    @property
    def claim(self) -> Claim | None:
        """On what the effects of its turn are conditioned; nothing at a parallel endpoint."""
        if self.parked is not None:
            return self.parked
        lease = self.source.lease
        return None if lease is None or self.epoch is None else Claim(lease.key, self.epoch)

    def cancel(self) -> None:
        """Its sender no longer wants it."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()

    def settle(self, *, again: bool = False) -> Job | None:
        """Acknowledge, or give back. Gives a twin, if there is one and nothing is given back: it may have come after
        the reply had left, and its sender waits for another one."""
        parcel, self.parcel = self.parcel, None
        if parcel is not None:
            parcel.settle(again=again)
        if not self.twins:
            return None
        twins, self.twins = self.twins, []
        repeated: Job | None = None
        while True:
            try:
                twin = twins.pop()  # Another thread may take one back meanwhile.
            except IndexError:
                return repeated
            if repeated is None and not again:
                repeated = twin
            else:
                twin.settle()
