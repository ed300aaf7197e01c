"""What one caller may have of an owner, as a value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from coflows.errors import ConfigurationError

BURST = 4.0
"""Seconds whose bytes a caller may send at once."""
LEAST_IN_HAND = 2**20


@dataclass(frozen=True, slots=True)
class Quota:
    """What each other user may have; None is no limit. The owner himself has none."""

    instances: int | None = 10_000
    """Instances that are mounted for him, their subflows of the same owner counted."""
    messages: int | None = 10_000
    """Messages of his that one worker has in hand at a time, worked on or waiting; and requests for instances."""
    bytes_per_second: float | None = 16.0 * 2**20
    """Bytes of messages and replies, over some seconds (``BURST``)."""
    stored_bytes: int | None = 2**30
    """Bytes of configs and states that his instances keep."""
    turn_seconds: float | None = 86_400.0
    """Seconds that a turn of his may take, waiting included."""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None and not (_is_number(value) and value > 0):
                raise ConfigurationError(
                    f"A quota's {one.name} is a number above 0, or None for no limit, not {str(value)[:80]!r}."
                )

    def with_limits(self, limits: Mapping[str, Any]) -> Self:
        """The same with some other limits, by name. Raises ConfigurationError for what is none."""
        known = {one.name: getattr(self, one.name) for one in fields(self)}
        unknown = sorted(str(name)[:80] for name in limits.keys() - known.keys())
        if unknown:
            raise ConfigurationError(f"A quota has no {unknown[0]!r}.", hint=f"It has: {', '.join(known)}.")
        return type(self)(**{**known, **limits})

    @property
    def in_hand(self) -> float:
        """Bytes of memory that messages in hand at one worker may take."""
        return max(2 * self.burst, LEAST_IN_HAND)

    @property
    def burst(self) -> float:
        """Bytes that may come at once."""
        return math.inf if self.bytes_per_second is None else BURST * self.bytes_per_second


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
