"""Puts the messages of a stream into the order they were sent in, without I/O.

A stream is what one session sent to one instance, numbered from 1. A message that comes before an earlier one waits for
it; one whose place has been passed by is late.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

Job = TypeVar("Job", bound=Hashable)
Key = tuple[str, str]
"""Instance and stream."""

PATIENCE = 30.0
"""Seconds that a message waits for earlier ones, which their sender sends again when he has lost them."""
MAX_EARLY, MAX_EARLY_BYTES = 5_000, 16 * 2**20
"""Messages, and bytes of them, that wait for earlier ones at a time: senders lose one envelope, not that many. Beyond
it the stream that has most of them goes on without what is missing, so that nobody takes all room from others."""
MAX_STREAMS = 100_000
"""Streams that are remembered; how far another one has got is in the store, save what was refused."""


class _Early(NamedTuple, Generic[Job]):
    """A number that came before an earlier one: its job, when it came, and how large it is."""

    job: Job | None
    at: float
    size: int


@dataclass(slots=True)
class _Stream(Generic[Job]):
    passed: int
    early: dict[int, _Early[Job]] = field(default_factory=dict)
    size: int = 0

    @property
    def share(self) -> float:
        """How much of the room for early messages it takes."""
        return len(self.early) / MAX_EARLY + self.size / MAX_EARLY_BYTES


class Sequencer(Generic[Job]):
    """Not thread-safe. ``passed`` numbers are those let through, from ``begin`` on those of the store."""

    def __init__(self) -> None:
        self._streams: dict[Key, _Stream[Job]] = {}
        """The least recently used first."""
        self._waiting: dict[Key, _Stream[Job]] = {}
        """Those in which something is early."""
        self._early = self._bytes = 0

    def __len__(self) -> int:
        return len(self._streams)

    def instances(self) -> set[str]:
        """Those whose streams are remembered."""
        return {flow_id for flow_id, _ in self._streams}

    def knows(self, key: Key) -> bool:
        """Whether the stream was begun."""
        return key in self._streams

    def begin(self, key: Key, passed: int) -> None:
        """All up to number ``passed`` was worked off."""
        self._streams.setdefault(key, _Stream(passed))

    def is_late(self, key: Key, number: int) -> bool:
        """Whether the number was let through, or passed by, before."""
        return number <= self._streams[key].passed

    def offer(self, key: Key, number: int, job: Job | None, now: float, size: int = 0) -> list[Job]:
        """A message that is not late: the jobs that may go on now, in order. Without a job the number is only passed:
        the message is being worked off under another one."""
        stream = self._streams[key] = self._streams.pop(key)
        if number == stream.passed + 1 and not stream.early:
            stream.passed = number
            return [] if job is None else [job]
        if job is not None or number not in stream.early:
            self._drop(key, stream, number)
            stream.early[number] = _Early(job, now, size)
            stream.size += size
            self._early += 1
            self._bytes += size
            self._waiting[key] = stream
        ready = self._advance(key, stream, stream.passed)
        while self._early > MAX_EARLY or self._bytes > MAX_EARLY_BYTES:
            key, stream = max(self._waiting.items(), key=lambda entry: entry[1].share)
            ready += self._advance(key, stream, max(stream.early))
        return ready

    def expire(self, now: float) -> list[Job]:
        """The jobs that have waited long enough for what does not come. Forgets streams that were not used for long,
        where there are many."""
        ready: list[Job] = []
        for key, stream in list(self._waiting.items()):
            due = [number for number, one in stream.early.items() if now - one.at >= PATIENCE]
            if due:
                ready += self._advance(key, stream, max(due))
        excess = len(self._streams) - MAX_STREAMS
        if excess > 0:
            for key in [key for key in self._streams if key not in self._waiting][:excess]:
                del self._streams[key]
        return ready

    def _advance(self, key: Key, stream: _Stream[Job], upto: int) -> list[Job]:
        """Pass what is there up to a number, whatever is missing, and what follows it without a gap."""
        ready: list[Job] = []
        numbers = [] if upto == stream.passed else sorted(number for number in stream.early if number <= upto)
        stream.passed = upto
        while stream.passed + 1 in stream.early:
            stream.passed += 1
            numbers.append(stream.passed)
        for number in numbers:
            job = stream.early[number].job
            self._drop(key, stream, number)
            if job is not None:
                ready.append(job)
        return ready

    def _drop(self, key: Key, stream: _Stream[Job], number: int) -> None:
        one = stream.early.pop(number, None)
        if one is not None:
            stream.size -= one.size
            self._early -= 1
            self._bytes -= one.size
            if not stream.early:
                del self._waiting[key]

    def forget(self, flow_ids: set[str]) -> list[Job]:
        """Forget the streams of these instances: another worker may go on with them. Gives the jobs that waited there
        for earlier ones."""
        jobs: list[Job] = []
        for key in [key for key in self._streams if key[0] in flow_ids]:
            stream = self._streams[key]
            for number, one in list(stream.early.items()):
                self._drop(key, stream, number)
                if one.job is not None:
                    jobs.append(one.job)
            del self._streams[key]
        return jobs

    def withdraw(self, jobs: set[Job]) -> None:
        """Forget these jobs where they wait for earlier ones."""
        for key, stream in list(self._waiting.items()):
            for number in [number for number, one in stream.early.items() if one.job in jobs]:
                self._drop(key, stream, number)
