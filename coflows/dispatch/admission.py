"""Decides, without I/O, which turns may run now: in order within a lane, and at most ``concurrency`` batches at a time.

A lane is what must not run twice at once: an instance, or (for parallel endpoints) a single message. A batch begins one
ready job after the other, of one lane or many, so that its turns share one commit; the lanes stay taken until the batch
has ended. When a turn takes its time the batch begins no more, and what waits starts in another. A batch that waits for
something gives its slot to others and gets one back, before any new batch, when it goes on; so a chain of turns that
wait for each other completes on one slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)

MAX_BATCH = 64
"""Jobs."""


@dataclass(eq=False, slots=True)
class Batch(Generic[Job]):
    """Jobs that are begun one after the other: the lanes that it has, and the one it is in. ``open`` while it may begin
    more."""

    lanes: set[str] = field(default_factory=set)
    lane: str = ""
    begun: int = 0
    open: bool = True


@dataclass(frozen=True, slots=True)
class Start(Generic[Job]):
    """Begin jobs for this batch now."""

    batch: Batch[Job]


@dataclass(frozen=True, slots=True)
class Resume(Generic[Job]):
    """Let this paused batch go on now."""

    batch: Batch[Job]


Commands = list[Start[Job] | Resume[Job]]


class Admission(Generic[Job]):
    """Events in, commands out. Not thread-safe: its owner serialises the events and obeys the commands."""

    def __init__(self, concurrency: int) -> None:
        self.free = concurrency
        self._lanes: dict[str, deque[Job]] = {}
        """What waits, none of it begun."""
        self._taken: dict[str, Batch[Job]] = {}
        self._held: set[str] = set()
        self._running: set[Batch[Job]] = set()
        self._fresh: Batch[Job] | None = None
        """The batch that was started and has begun nothing yet: it can begin all that is ready, so one is enough."""
        self._ready: deque[str] = deque()
        self._resuming: deque[Batch[Job]] = deque()

    @property
    def idle(self) -> bool:
        """Whether no lane waits for a slot, and at most one batch runs. May be asked from any thread."""
        return not self._ready and len(self._running) - (self._fresh is not None) < 2

    @property
    def waits(self) -> bool:
        """Whether a lane is ready that no batch has. May be asked from any thread."""
        return bool(self._ready)

    def arrive(self, jobs: Iterable[tuple[str, Job]]) -> Commands[Job]:
        """Messages came, each the last of its lane."""
        for lane, job in jobs:
            queue = self._lanes.get(lane)
            if queue is None:
                queue = self._lanes[lane] = deque()
                if lane not in self._taken and lane not in self._held:
                    self._ready.append(lane)
            queue.append(job)
        return self._fill()

    def next(self, batch: Batch[Job]) -> Job | None:
        """Begin the next job of a running batch: of the lane that it is in, or of the next that is ready. None when it
        is to begin no more."""
        if batch is self._fresh:
            self._fresh = None
        if not batch.open or batch.begun >= MAX_BATCH:
            return None
        lane = batch.lane
        if lane not in batch.lanes or lane in self._held or lane not in self._lanes:
            if not self._ready:
                return None
            lane = batch.lane = self._ready.popleft()
            batch.lanes.add(lane)
            self._taken[lane] = batch
        queue = self._lanes[lane]
        job = queue.popleft()
        if not queue:
            del self._lanes[lane]
        batch.begun += 1
        return job

    def release(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch's thread is done with it, its commit is on the way: the slot is free, the lanes are not."""
        self._give_slot(batch)
        return self._fill()

    def detach(self, batch: Batch[Job], lane: str) -> Batch[Job]:
        """A job that was begun goes on somewhere that takes no slot: it becomes a batch of its own, which has the lane
        until its ``end``; the others go on without it."""
        alone: Batch[Job] = Batch({lane}, lane, 1, open=False)
        batch.lanes.remove(lane)
        self._taken[lane] = alone
        return alone

    def join(self, batches: Iterable[Batch[Job]]) -> Batch[Job]:
        """Detached batches whose jobs end together are one from now on."""
        joined: Batch[Job] = Batch(open=False)
        for batch in batches:
            joined.lanes |= batch.lanes
            batch.lanes.clear()
        for lane in joined.lanes:
            self._taken[lane] = joined
        return joined

    def let_go(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch begins no more; what waits may start in another."""
        batch.open = False
        if batch is self._fresh:
            self._fresh = None
        return self._fill()

    def end(self, batch: Batch[Job], again: Iterable[tuple[str, Job]] = ()) -> Commands[Job]:
        """The batch is over, whether it was running, paused or released; ``again`` are the first of their lanes."""
        self._give_slot(batch)
        if batch in self._resuming:
            self._resuming.remove(batch)
        for lane, job in reversed(list(again)):
            self._lanes.setdefault(lane, deque()).appendleft(job)
        for lane in batch.lanes:
            del self._taken[lane]
            if lane in self._lanes and lane not in self._held:
                self._ready.append(lane)
        batch.lanes.clear()
        batch.open = False
        return self._fill()

    def pause(self, batch: Batch[Job]) -> Commands[Job]:
        """A running batch waits for something; the lanes it has begun stay taken, its slot does not."""
        self._give_slot(batch)
        return self.let_go(batch)

    def resume(self, batch: Batch[Job]) -> Commands[Job]:
        """A paused batch could go on; it may when Resume comes."""
        self._resuming.append(batch)
        return self._fill()

    def hold(self, lane: str) -> None:
        """Begin nothing of a lane until ``let_loose``; what was begun goes on."""
        self._held.add(lane)
        if lane in self._ready:
            self._ready.remove(lane)

    def let_loose(self, lane: str, first: Job | None = None) -> Commands[Job]:
        """A lane is not held any more; ``first``: what goes before all that waits there."""
        waits = lane in self._lanes and lane not in self._held
        self._held.discard(lane)
        if first is not None:
            self._lanes.setdefault(lane, deque()).appendleft(first)
        if lane in self._lanes and lane not in self._taken and not waits:
            self._ready.append(lane)
        return self._fill()

    def withdraw(self, jobs: Iterable[Job]) -> list[Job]:
        """Forget those of the jobs that were not begun; gives them. The others go on."""
        wanted, gone = set(jobs), []
        for lane in list(self._lanes):
            queue = self._lanes[lane]
            if wanted.isdisjoint(queue):
                continue
            gone += [job for job in queue if job in wanted]
            kept = deque(job for job in queue if job not in wanted)
            if kept:
                self._lanes[lane] = kept
                continue
            del self._lanes[lane]
            if lane not in self._taken and lane not in self._held:
                self._ready.remove(lane)
        return gone

    def _give_slot(self, batch: Batch[Job]) -> None:
        if batch is self._fresh:
            self._fresh = None
        if batch in self._running:
            self._running.remove(batch)
            self.free += 1

    def _fill(self) -> Commands[Job]:
        commands: Commands[Job] = []
        while self.free and (self._resuming or (self._ready and self._fresh is None)):
            self.free -= 1
            if self._resuming:
                batch = self._resuming.popleft()
                commands.append(Resume(batch))
            else:
                batch = self._fresh = Batch()
                commands.append(Start(batch))
            self._running.add(batch)
        return commands
