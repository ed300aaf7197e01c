"""How many attempts executors are handed beyond those that they have room for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from coflows.workflow.graph.process import ProcessSpec

SLACK = 64


class Pace:
    """None, where one may become ready that is more urgent, or where they take their time: so it need not wait behind
    others. Short ones of one priority alone would be held up by being asked for one by one. Not thread-safe."""

    def __init__(self) -> None:
        self._priorities: set[int] = set()
        self._short: Counter[str] = Counter()

    def note_specs(self, specs: Iterable[ProcessSpec]) -> None:
        """These are in the graph."""
        self._priorities.update(spec.policy.priority for spec in specs)

    def note_end(self, executortype: str, *, short: bool) -> None:
        """One of this type is over; ``short``: before anybody heard that it was begun. A machine that is busy makes
        some last longer."""
        known = self._short[executortype]
        self._short[executortype] = min(known + 1, SLACK) if short else known // 2

    def slack(self, executortype: str) -> int:
        """How many more each user's executors of a type are handed."""
        return self._short[executortype] if len(self._priorities) <= 1 else 0
