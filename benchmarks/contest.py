"""Contestants, and how they are compared: in turn with the reference, round by round, so that noise meets both."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.processes import Child, cpu_seconds

WINDOW = 500
Pids = Callable[[], Iterable[int]]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: milliseconds of a call, calls per second, and microseconds of CPU per call by role."""

    p50: float
    p99: float
    rate: float
    cpu: dict[str, float]


@dataclass(frozen=True, slots=True)
class Contestant:
    """A system to be measured: a client process, and by role the processes that serve it."""

    name: str
    client: Child
    roles: Mapping[str, Pids]
    target: str = ""
    singles: int = 400
    """Calls of a measurement with one in flight."""
    many: int = 6000
    """Calls of a measurement with many in flight."""

    def part(self, part: float) -> Contestant:
        """The same with that part of the calls, but enough to see something."""
        return replace(self, singles=max(20, int(self.singles * part)), many=max(100, int(self.many * part)))

    def measure(self, window: int) -> Sample:
        """Make calls with ``window`` in flight."""
        count = self.singles if window == 1 else min(self.many, 200 * window)
        before = {role: cpu_seconds(pids()) for role, pids in self.roles.items()}
        said = self.client.ask({"target": self.target, "count": count, "window": window})
        after = {role: cpu_seconds(pids()) for role, pids in self.roles.items()}
        used = {"client": said["cpu"], **{role: after[role] - before[role] for role in after}}
        return Sample(
            said["p50"] * 1e3,
            said["p99"] * 1e3,
            count / said["seconds"],
            {role: seconds / count * 1e6 for role, seconds in used.items()},
        )


def median(samples: Sequence[Sample]) -> Sample:
    """Each figure's median."""
    return Sample(
        statistics.median(one.p50 for one in samples),
        statistics.median(one.p99 for one in samples),
        statistics.median(one.rate for one in samples),
        {role: statistics.median(one.cpu[role] for one in samples) for role in samples[0].cpu},
    )


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians by window, of a contestant and of the reference in the same rounds."""

    name: str
    against: str
    own: dict[int, Sample]
    reference: dict[int, Sample]

    @property
    def latency_ratio(self) -> float:
        """How much longer one call takes than the reference's."""
        return self.own[1].p50 / self.reference[1].p50

    @property
    def rate_ratio(self) -> float:
        """How many times the reference's calls per second."""
        return self.own[WINDOW].rate / self.reference[WINDOW].rate


def compare(reference: Contestant, other: Contestant, rounds: int, windows: Sequence[int] = (1, WINDOW)) -> Comparison:
    """Measure both, ``rounds`` times each way, after one measurement that does not count."""
    other.measure(windows[0])
    other.measure(windows[-1])
    own: dict[int, list[Sample]] = {window: [] for window in windows}
    base: dict[int, list[Sample]] = {window: [] for window in windows}
    for number in range(rounds):
        for window in windows:
            turns = [(reference, base), (other, own)]
            for contestant, samples in turns if number % 2 == 0 else reversed(turns):
                samples[window].append(contestant.measure(window))
    return Comparison(
        other.name,
        reference.name,
        {window: median(samples) for window, samples in own.items()},
        {window: median(samples) for window, samples in base.items()},
    )
