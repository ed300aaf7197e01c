"""The verdict over a load: what was sent, how its futures ended, and what the witnesses applied."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Verdict:
    """Numbers of messages; all of them 0 when nothing went wrong. ``failed`` counts futures that ended in an error."""

    sent: int
    lost: int
    twice: int
    disordered: int
    unended: int
    failed: int

    @property
    def good(self) -> bool:
        """Whether every guarantee held."""
        return not (self.lost or self.twice or self.disordered or self.unended or self.failed)

    def __add__(self, other: Verdict) -> Verdict:
        """The verdict over both loads."""
        return Verdict(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))


def judge(
    sent: Mapping[str, Sequence[int]], answered: Mapping[str, Sequence[int | None]], seen: Mapping[str, Sequence[int]]
) -> Verdict:
    """``sent``: the numbers of each instance in the order of sending. ``answered``: for each of them the number in its
    reply, None for an error, and shorter where a future did not end. ``seen``: what the instance applied, in order."""
    lost = twice = disordered = unended = failed = 0
    for name, numbers in sent.items():
        applied = seen.get(name, ())
        counts = Counter(applied)
        lost += sum(1 for number in numbers if not counts[number])
        twice += sum(count - 1 for count in counts.values())
        places = {number: place for place, number in reversed(list(enumerate(applied)))}
        there = [places[number] for number in numbers if number in places]
        disordered += sum(1 for before, after in pairwise(there) if after < before)
        replies = answered.get(name, ())
        unended += len(numbers) - len(replies)
        failed += sum(1 for number, reply in zip(numbers, replies, strict=False) if number != reply)
    return Verdict(sum(map(len, sent.values())), lost, twice, disordered, unended, failed)
