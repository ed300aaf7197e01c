"""Decides, without I/O, which turns may run now: in order within a lane, and at most ``concurrency`` at a time.

A lane is what must not run twice at once: an instance, or (for parallel endpoints) a single message. A turn that waits
for a reply gives its slot to others and gets one back, before any new turn, when it goes on; so a chain of turns
that wait for each other completes on one slot.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Start(Generic[Job]):
    """Run this job's turn now."""

    job: Job


@dataclass(frozen=True, slots=True)
class Resume(Generic[Job]):
    """Let this paused job go on now."""

    job: Job


class Admission(Generic[Job]):
    """Events in, commands out. Not thread-safe: its owner serialises the events and obeys the commands."""

    def __init__(self, concurrency: int) -> None:
        self.free = concurrency
        self._lanes: dict[str, deque[Job]] = {}
        self._lane_of: dict[Job, str] = {}
        self._running: set[Job] = set()
        self._paused: set[Job] = set()
        self._ready: deque[Job] = deque()
        self._resuming: deque[Job] = deque()

    def arrive(self, job: Job, lane: str) -> list[Start[Job] | Resume[Job]]:
        """A message came; it is the last of its lane."""
        self._lane_of[job] = lane
        queue = self._lanes.setdefault(lane, deque())
        queue.append(job)
        if len(queue) > 1:
            return []
        self._ready.append(job)
        return self._fill()

    def end(self, job: Job) -> list[Start[Job] | Resume[Job]]:
        """A job's turn is over, whether it was running or paused."""
        if job in self._running:
            self._running.remove(job)
            self.free += 1
        else:
            self._paused.discard(job)
            if job in self._resuming:
                self._resuming.remove(job)
        lane = self._lane_of.pop(job)
        queue = self._lanes[lane]
        queue.popleft()
        if queue:
            self._ready.append(queue[0])
        else:
            del self._lanes[lane]
        return self._fill()

    def pause(self, job: Job) -> list[Start[Job] | Resume[Job]]:
        """A running job waits for something; its lane stays taken, its slot does not."""
        self._running.remove(job)
        self._paused.add(job)
        self.free += 1
        return self._fill()

    def resume(self, job: Job) -> list[Start[Job] | Resume[Job]]:
        """A paused job could go on; it may when Resume comes."""
        self._paused.remove(job)
        self._resuming.append(job)
        return self._fill()

    def withdraw(self, jobs: Iterable[Job]) -> list[Job]:
        """Forget those of the jobs that have not started; gives them. The others go on."""
        gone = [job for job in jobs if job in self._lane_of and not self._started(job)]
        lost = set(gone)
        self._ready = deque(job for job in self._ready if job not in lost)
        for lane in dict.fromkeys(self._lane_of.pop(job) for job in gone):
            was_first = self._lanes[lane][0] in lost
            queue = self._lanes[lane] = deque(job for job in self._lanes[lane] if job not in lost)
            if not queue:
                del self._lanes[lane]
            elif was_first:
                self._ready.append(queue[0])
        return gone

    def _started(self, job: Job) -> bool:
        return job in self._running or job in self._paused or job in self._resuming

    def _fill(self) -> list[Start[Job] | Resume[Job]]:
        commands: list[Start[Job] | Resume[Job]] = []
        while self.free and (self._resuming or self._ready):
            self.free -= 1
            command = Resume(self._resuming.popleft()) if self._resuming else Start(self._ready.popleft())
            self._running.add(command.job)
            commands.append(command)
        return commands
