"""Attempts that are ready and were given to nobody yet: by executor type, the highest priority first."""

from __future__ import annotations

import heapq
import itertools

from coflows.workflow.graph.commands import Start


class Backlog:
    """Of equal priority, in the order of ``put``. Not thread-safe."""

    def __init__(self) -> None:
        self._heaps: dict[str, list[tuple[int, int, Start]]] = {}
        self._numbers = itertools.count()

    def put(self, start: Start) -> None:
        """Add one."""
        heap = self._heaps.setdefault(start.executortype, [])
        heapq.heappush(heap, (-start.priority, next(self._numbers), start))

    def waits(self, executortype: str) -> bool:
        """Whether there is any of this type."""
        return executortype in self._heaps

    def types(self) -> list[str]:
        """Of which types there are any."""
        return sorted(self._heaps)

    def take(self, executortype: str) -> Start:
        """The first one of this type; KeyError when there is none."""
        heap = self._heaps[executortype]
        start = heapq.heappop(heap)[2]
        if not heap:
            del self._heaps[executortype]
        return start
