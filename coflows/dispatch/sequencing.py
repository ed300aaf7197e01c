"""Puts the messages of a stream into the order they were sent in, without I/O.

A stream is what one session sent to one instance, numbered from 1. A message that comes before an earlier one waits for
it; one whose place has been passed by is late.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Job = TypeVar("Job", bound=Hashable)
Key = tuple[str, str]
"""Instance and stream."""

PATIENCE = 30.0
"""Seconds that a message waits for an earlier one, which its sender sends again when it has lost it."""


@dataclass(slots=True)
class _Stream(Generic[Job]):
    passed: int
    early: dict[int, Job | None] = field(default_factory=dict)
    since: float = 0.0


class Sequencer(Generic[Job]):
    """Not thread-safe. ``passed`` numbers are those let through, from ``begin`` on those of the store."""

    def __init__(self) -> None:
        self._streams: dict[Key, _Stream[Job]] = {}

    def knows(self, key: Key) -> bool:
        """Whether the stream was begun."""
        return key in self._streams

    def begin(self, key: Key, passed: int) -> None:
        """All up to number ``passed`` was worked off."""
        self._streams.setdefault(key, _Stream(passed))

    def is_late(self, key: Key, number: int) -> bool:
        """Whether the number was let through, or passed by, before."""
        return number <= self._streams[key].passed

    def offer(self, key: Key, number: int, job: Job | None, now: float) -> list[Job]:
        """A message that is not late: the jobs that may go on now, in order. Without a job the number is only passed:
        the message is being worked off under another one."""
        stream = self._streams[key]
        if number != stream.passed + 1:
            if not stream.early:
                stream.since = now
            if job is not None or number not in stream.early:
                stream.early[number] = job
            return []
        stream.early[number] = job
        stream.since = now
        return self._advance(stream)

    def expire(self, now: float) -> list[Job]:
        """The jobs that have waited long enough for what does not come."""
        ready: list[Job] = []
        for stream in self._streams.values():
            if stream.early and now - stream.since >= PATIENCE:
                stream.passed = min(stream.early) - 1
                stream.since = now
                ready += self._advance(stream)
        return ready

    def _advance(self, stream: _Stream[Job]) -> list[Job]:
        ready: list[Job] = []
        while stream.passed + 1 in stream.early:
            stream.passed += 1
            job = stream.early.pop(stream.passed)
            if job is not None:
                ready.append(job)
        return ready

    def forget(self, flow_ids: set[str]) -> list[Job]:
        """Forget the streams of these instances: another worker may go on with them. Gives the jobs that waited there
        for earlier ones."""
        gone = [self._streams.pop(key) for key in list(self._streams) if key[0] in flow_ids]
        return [job for stream in gone for job in stream.early.values() if job is not None]

    def withdraw(self, jobs: set[Job]) -> None:
        """Forget these jobs where they wait for earlier ones."""
        for stream in self._streams.values():
            for number in [number for number, job in stream.early.items() if job in jobs]:
                del stream.early[number]
