"""How much memory requests that are in hand may take together: what would be too much is refused, not waited for."""

from __future__ import annotations

import threading


class Room:
    """``limit`` bytes for what is larger than ``small``; what is not is bounded by its number. One always gets in when
    nothing else is there. Thread-safe."""

    def __init__(self, limit: int, small: int) -> None:
        self._limit = limit
        self._small = small
        self._taken = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> bool:
        """Whether there is room for that many bytes, which are taken then."""
        if size <= self._small:
            return True
        with self._lock:
            if self._taken and self._taken + size > self._limit:
                return False
            self._taken += size
            return True

    def give(self, size: int) -> None:
        """What was taken is free again."""
        if size > self._small:
            with self._lock:
                self._taken -= size
