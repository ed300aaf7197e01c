"""Attempts that are ready to be begun, the highest priority first."""

from __future__ import annotations

import heapq
import itertools

from coflows.workflow.graph.commands import Decide, Start

Job = Start | Decide


class ReadyQueue:
    """Of equal priority, in the order of ``put``. Not thread-safe."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Job]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def put(self, job: Job) -> None:
        """Add one; a decision goes before everything: it takes no time, and others wait for it."""
        priority = job.priority if isinstance(job, Start) else float("inf")
        heapq.heappush(self._heap, (-priority, next(self._numbers), job))  # type: ignore[misc]

    def take(self) -> Job:
        """The first one; IndexError when there is none."""
        return heapq.heappop(self._heap)[2]
