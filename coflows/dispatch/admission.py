"""Decides, without I/O, which turns may run now: in order within a lane, and at most ``concurrency`` lanes at a time.

A lane is what must not run twice at once: an instance, or (for parallel endpoints) a single message. What waits in a
lane is started together, as a batch, and the lane stays taken until the batch has ended: its turns are committed. A
batch that waits for something gives its slot to others and gets one back, before any new batch, when it goes on; so a
chain of turns that wait for each other completes on one slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)

MAX_BATCH = 64


@dataclass(eq=False, slots=True)
class Batch(Generic[Job]):
    """Jobs of one lane that were started together. ``jobs`` are those that its thread has not taken up yet."""

    lane: str
    jobs: deque[Job]


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
        self._running: set[Batch[Job]] = set()
        self._ready: deque[str] = deque()
        self._resuming: deque[Batch[Job]] = deque()

    def arrive(self, job: Job, lane: str) -> Commands[Job]:
        """A message came; it is the last of its lane."""
        queue = self._lanes.get(lane)
        if queue is None:
            queue = self._lanes[lane] = deque()
            if lane not in self._taken:
                self._ready.append(lane)
        queue.append(job)
        return self._fill() if self.free else []

    def release(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch's thread is done with it, its commit is on the way: the slot is free, the lane is not."""
        if batch not in self._running:
            return []
        self._running.remove(batch)
        self.free += 1
        return self._fill()

    def end(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch is over, whether it was running, paused or released; what it did not take up goes back."""
        if batch in self._running:
            self._running.remove(batch)
            self.free += 1
        elif batch in self._resuming:
            self._resuming.remove(batch)
        self.put_back(batch)
        if self._taken.pop(batch.lane, None) is not None and batch.lane in self._lanes:
            self._ready.append(batch.lane)
        return self._fill()

    def put_back(self, batch: Batch[Job], *before: Job) -> None:
        """``before``, and the jobs that the batch has not taken up, are the first of their lane again."""
        batch.jobs.extendleft(reversed(before))
        if batch.jobs:
            self._lanes.setdefault(batch.lane, deque()).extendleft(reversed(batch.jobs))
            batch.jobs.clear()

    def pause(self, batch: Batch[Job]) -> Commands[Job]:
        """A running batch waits for something; its lane stays taken, its slot does not."""
        self._running.remove(batch)
        self.free += 1
        return self._fill()

    def resume(self, batch: Batch[Job]) -> Commands[Job]:
        """A paused batch could go on; it may when Resume comes."""
        self._resuming.append(batch)
        return self._fill()

    def withdraw(self, jobs: Iterable[Job]) -> list[Job]:
        """Forget those of the jobs that have not started; gives them. The others go on."""
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
            if lane not in self._taken:
                self._ready.remove(lane)
        return gone

    def _fill(self) -> Commands[Job]:
        commands: Commands[Job] = []
        while self.free and (self._resuming or self._ready):
            self.free -= 1
            if self._resuming:
                batch = self._resuming.popleft()
                commands.append(Resume(batch))
            else:
                batch = self._take(self._ready.popleft())
                commands.append(Start(batch))
            self._running.add(batch)
        return commands

    def _take(self, lane: str) -> Batch[Job]:
        queue = self._lanes[lane]
        if len(queue) <= MAX_BATCH:
            del self._lanes[lane]
        else:
            self._lanes[lane] = queue
            queue = deque(queue.popleft() for _ in range(MAX_BATCH))
        batch = self._taken[lane] = Batch(lane, queue)
        return batch
