"""The timers of one run, the earliest first."""

from __future__ import annotations

import heapq

from coflows.workflow.graph.commands import Timer


class Timers:
    """Set, clear and look at timers, each in about log(number of timers). Not thread-safe."""

    def __init__(self) -> None:
        self._due: dict[Timer, float] = {}
        self._heap: list[tuple[float, Timer]] = []

    def __len__(self) -> int:
        return len(self._due)

    def set(self, timer: Timer, due: float) -> None:
        """``due`` in seconds; setting it again moves it."""
        self._due[timer] = due
        heapq.heappush(self._heap, (due, timer))

    def clear(self, timer: Timer) -> None:
        """Nothing happens when it is not set."""
        self._due.pop(timer, None)
        if len(self._heap) > 2 * len(self._due) + 64:  # Most of it was cleared: a long run must not gather that.
            self._heap = [(due, timer) for timer, due in self._due.items()]
            heapq.heapify(self._heap)

    def earliest(self) -> tuple[Timer, float] | None:
        """The timer that is due next, and when."""
        while self._heap:
            due, timer = self._heap[0]
            if self._due.get(timer) == due:
                return timer, due
            heapq.heappop(self._heap)
        return None
