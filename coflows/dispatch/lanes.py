"""What waits in each lane, and in which order it comes out: each caller's is kept, and none waits long for others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Hashable
from typing import Generic, TypeVar

from coflows.quotas.fair_queue import FairQueue

Job = TypeVar("Job", bound=Hashable)

SHORT = 32
"""Jobs of a lane up to which it keeps the order in which they came, whoever sent them."""


class Lanes(Generic[Job]):
    """A lane is there while something waits in it. In one order, as long as it is all of one caller or not much, it has
    a turn of whose is first alone; else of each who has something in it. ``full``: callers whose jobs cannot begin now,
    and behind whom nobody is to wait. Not thread-safe."""

    def __init__(self, caller_of: Callable[[Job], str]) -> None:
        self._caller_of = caller_of
        self._queues: dict[str, deque[Job] | FairQueue[str, Job]] = {}
        self._shared: set[str] = set()
        """Lanes in one order in which several callers have something."""

    def __contains__(self, lane: str) -> bool:
        return lane in self._queues

    def __len__(self) -> int:
        return len(self._queues)

    def begin(self, lane: str, job: Job) -> str:
        """The first job of a lane that is not there; gives its caller."""
        self._queues[lane] = deque((job,))
        return self._caller_of(job)

    def append(self, lane: str, job: Job, full: Collection[str]) -> Collection[str]:
        """The last job of a lane that is there; gives who has a turn in it now and had none before."""
        queue, caller = self._queues[lane], self._caller_of(job)
        if isinstance(queue, deque):
            if self._may_append(lane, queue, caller, full):
                queue.append(job)
                return ()
            mixed = self._mix(lane, queue)
            new = list(mixed.owners)[1:]
        else:
            mixed, new = queue, []
        if caller not in mixed.owners:
            new.append(caller)
        mixed.push(caller, job)
        return new

    def put_first(self, lane: str, job: Job) -> None:
        """Before all that waits there."""
        queue = self._queues.setdefault(lane, deque())
        if isinstance(queue, FairQueue):
            queue.push_first(self._caller_of(job), job)
            return
        if queue and self._caller_of(queue[0]) != self._caller_of(job):
            self._shared.add(lane)
        queue.appendleft(job)

    def pop(self, lane: str, full: Collection[str]) -> tuple[str, Job]:
        """The next job of a lane in which something may begin, and its caller."""
        queue = self._queues[lane]
        if isinstance(queue, deque):
            job = queue.popleft()
            caller = self._caller_of(job)
        else:
            found = queue.pop(full)
            assert found is not None
            caller, job = found
        if not queue:
            self._forget(lane)
        return caller, job

    def may_begin(self, lane: str, full: Collection[str]) -> bool:
        """Whether something is there whose turn it may be."""
        queue = self._queues.get(lane)
        if queue is None:
            return False
        if isinstance(queue, deque):
            return self._caller_of(queue[0]) not in full
        return queue.waits(full)

    def owners(self, lane: str) -> Collection[str]:
        """Who has a turn in it."""
        queue = self._queues.get(lane)
        if queue is None:
            return ()
        return (self._caller_of(queue[0]),) if isinstance(queue, deque) else queue.owners

    def open_up(self, lane: str, full: Collection[str]) -> Collection[str]:
        """Who has a turn in it, once nobody waits behind one who is full."""
        if lane in self._shared:
            queue = self._queues[lane]
            if isinstance(queue, deque) and self._caller_of(queue[0]) in full:
                self._mix(lane, queue)
        return self.owners(lane)

    def open_up_behind(self, caller: str) -> list[str]:
        """The lanes that had one order, with a job of the caller's as the first; they have it no longer."""
        opened: list[str] = []
        for lane in list(self._shared):
            queue = self._queues[lane]
            if isinstance(queue, deque) and self._caller_of(queue[0]) == caller:
                self._mix(lane, queue)
                opened.append(lane)
        return opened

    def withdraw(self, wanted: set[Job]) -> tuple[list[Job], list[str]]:
        """Take these out; gives those that were there, and the lanes in which others have a turn now than before."""
        gone: list[Job] = []
        changed: list[str] = []
        for lane, queue in list(self._queues.items()):
            before = set(self.owners(lane))
            if isinstance(queue, FairQueue):
                gone += queue.discard(wanted)
            elif not wanted.isdisjoint(queue):
                gone += [job for job in queue if job in wanted]
                queue = self._queues[lane] = deque(job for job in queue if job not in wanted)
            if not queue:
                self._forget(lane)
            if before != set(self.owners(lane)):
                changed.append(lane)
        return gone, changed

    def _may_append(self, lane: str, queue: deque[Job], caller: str, full: Collection[str]) -> bool:
        first = self._caller_of(queue[0])
        if first == caller and lane not in self._shared:
            return True
        if len(queue) >= SHORT or first in full:
            return False
        self._shared.add(lane)
        return True

    def _mix(self, lane: str, queue: deque[Job]) -> FairQueue[str, Job]:
        self._shared.discard(lane)
        mixed: FairQueue[str, Job] = FairQueue()
        for job in queue:
            mixed.push(self._caller_of(job), job)
        self._queues[lane] = mixed
        return mixed

    def _forget(self, lane: str) -> None:
        del self._queues[lane]
        self._shared.discard(lane)
