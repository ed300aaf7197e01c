"""How long to wait before trying again."""

from __future__ import annotations

FIRST = 0.25
CAP = 5.0


def delay(attempts: int, chance: float, first: float = FIRST, cap: float = CAP) -> float:
    """Seconds to wait after so many failures in a row: twice as long each time up to ``cap``, and by ``chance`` (0 to
    1) up to half of it less, so that those who lost the same peer do not come back all at once."""
    return min(cap, first * 2.0 ** min(max(attempts - 1, 0), 32)) * (1 - chance / 2)
