"""A token bucket: so much per second, and so much at once after a rest."""

from __future__ import annotations


class TokenBucket:
    """Full at first. Times are seconds of any one clock; one that goes back gives nothing and takes nothing. Not
    thread-safe."""

    __slots__ = ("_at", "_level")

    def __init__(self, capacity: float, now: float) -> None:
        self._level = capacity
        self._at = now

    def level(self, rate: float, capacity: float, now: float) -> float:
        """How much is in it; below 0 when more was charged than there was."""
        passed = now - self._at
        if passed > 0.0:
            self._level = min(capacity, self._level + rate * passed)
        self._level = min(capacity, self._level)
        self._at = now
        return self._level

    def take(self, amount: float, rate: float, capacity: float, now: float) -> float:
        """Take it and give 0, or take nothing and give the seconds after which it can be taken. More than fits is taken
        from a full bucket, and the rest is owed."""
        missing = min(amount, capacity) - self.level(rate, capacity, now)
        if missing > 0.0:
            return missing / rate
        self._level -= amount
        return 0.0

    def charge(self, amount: float) -> None:
        """Take it, whether it is there or owed from now on."""
        self._level -= amount
