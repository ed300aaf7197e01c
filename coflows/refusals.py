"""Counts what was refused, by the code of the error, so that an owner sees that somebody tries something."""

from __future__ import annotations

import threading
from collections import Counter

from coflows.errors import CoflowsError


class Refusals:
    """Of one session, since it was opened. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def count(self, error: CoflowsError) -> None:
        """Something was refused because of ``error``."""
        with self._lock:
            self._counts[error.code] += 1

    def counts(self) -> dict[str, int]:
        """How often, by the code of the error; a copy."""
        with self._lock:
            return dict(self._counts)
