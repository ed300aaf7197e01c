"""Decides, without I/O, which turns may run now: in order within a lane, and at most ``concurrency`` batches at a time.

A lane is what must not run twice at once: an instance, or (for parallel endpoints) a single message. What is ready is
started together, as a batch over many lanes, so that its turns share one commit; the lanes stay taken until the batch
has ended. When a turn takes its time, what the batch has not begun is let go, and starts in another. A batch that
waits for something gives its slot to others and gets one back, before any new batch, when it goes on; so a chain of
turns that wait for each other completes on one slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)

MAX_BATCH = 64


@dataclass(eq=False, slots=True)
class Batch(Generic[Job]):
    """Jobs that were started together: those not begun, and the lanes that it has."""

    waiting: deque[tuple[str, Job]] = field(default_factory=deque)
    lanes: dict[str, None] = field(default_factory=dict)
    begun: dict[str, None] = field(default_factory=dict)

    def next(self) -> Job | None:
        """Begin the next job; None when there is none left."""
        try:
            lane, job = self.waiting.popleft()
        except IndexError:
            return None
        self.begun[lane] = None
        return job


@dataclass(frozen=True, slots=True)
class Start(Generic[Job]):
    """Run this batch now."""

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
        self._taken: dict[str, Batch[Job]] = {}
        self._held: set[str] = set()
        self._running: set[Batch[Job]] = set()
        self._ready: deque[str] = deque()
        self._resuming: deque[Batch[Job]] = deque()

    @property
    def idle(self) -> bool:
        """Whether no lane waits for a slot, and at most one batch runs. May be asked from any thread."""
        return not self._ready and len(self._running) < 2

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

    def release(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch's thread is done with it, its commit is on the way: the slot is free, the lanes are not."""
        self._give_slot(batch)
        return self._fill()

    def detach(self, batch: Batch[Job], lane: str) -> Batch[Job]:
        """A job that was begun goes on somewhere that takes no slot: it becomes a batch of its own, which has the lane
        until its ``end``; the others go on without it."""
        alone: Batch[Job] = Batch(lanes={lane: None}, begun={lane: None})
        del batch.lanes[lane]
        batch.begun.pop(lane, None)
        self._taken[lane] = alone
        waiting = [entry for entry in batch.waiting if entry[0] == lane]
        if waiting:
            # What the batch has of the same lane comes after it.
            batch.waiting = deque(entry for entry in batch.waiting if entry[0] != lane)
            self._lanes.setdefault(lane, deque()).extendleft(job for _, job in reversed(waiting))
        return alone

    def let_go(self, batch: Batch[Job]) -> Commands[Job]:
        """What the batch has not begun may start in another."""
        self._put_back(batch)
        return self._fill()

    def end(self, batch: Batch[Job], again: Iterable[tuple[str, Job]] = ()) -> Commands[Job]:
        """The batch is over, whether it was running, paused or released; what it did not begin, and ``again``, are the
        first of their lanes."""
        self._give_slot(batch)
        if batch in self._resuming:
            self._resuming.remove(batch)
        batch.waiting.extendleft(reversed(list(again)))
        batch.begun.clear()
        self._put_back(batch)
        for lane in batch.lanes:
            self._free(lane)
        batch.lanes.clear()
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
        """Start nothing of a lane until ``let_loose``; a batch that has it goes on."""
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
        """Forget those of the jobs that are in no batch; gives them. The others go on."""
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

    def _put_back(self, batch: Batch[Job]) -> None:
        while batch.waiting:
            lane, job = batch.waiting.pop()
            self._lanes.setdefault(lane, deque()).appendleft(job)
        for lane in [lane for lane in batch.lanes if lane not in batch.begun]:
            del batch.lanes[lane]
            self._free(lane)

    def _free(self, lane: str) -> None:
        if self._taken.pop(lane, None) is not None and lane in self._lanes and lane not in self._held:
            self._ready.append(lane)

    def _give_slot(self, batch: Batch[Job]) -> None:
        if batch in self._running:
            self._running.remove(batch)
            self.free += 1

    def _fill(self) -> Commands[Job]:
        commands: Commands[Job] = []
        while self.free and (self._resuming or self._ready):
            self.free -= 1
            if self._resuming:
                batch = self._resuming.popleft()
                commands.append(Resume(batch))
            else:
                batch = self._take()
                commands.append(Start(batch))
            self._running.add(batch)
        return commands

    def _take(self) -> Batch[Job]:
        """A batch of what is ready, with whole lanes as far as they fit."""
        batch: Batch[Job] = Batch()
        while self._ready and len(batch.waiting) < MAX_BATCH:
            lane = self._ready.popleft()
            queue = self._lanes[lane]
            while queue and len(batch.waiting) < MAX_BATCH:
                batch.waiting.append((lane, queue.popleft()))
            if not queue:
                del self._lanes[lane]
            batch.lanes[lane] = None
            self._taken[lane] = batch
        return batch
