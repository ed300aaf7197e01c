"""Counts what was refused, by the code of the error, so that an owner sees that somebody tries something."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

from coflows.broker.base import Delivery
from coflows.errors import CoflowsError
from coflows.quotas.bucket import TokenBucket

logger = logging.getLogger(__name__)

KEPT = 256.0 * 2**20
"""Bytes of deliveries that become dead letters at once, and within a day; each counts for LETTER more. Whoever knows a
user's id may send what nobody can read: what is beyond that is dropped, before it fills the broker's disk."""
LETTER = 1024
DAY = 86_400.0
REASON = 1_000


class Refusals:
    """Of one session, since it was opened. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._room = TokenBucket(KEPT, time.monotonic())
        self._lock = threading.Lock()

    def count(self, error: CoflowsError) -> None:
        """Something was refused because of ``error``."""
        with self._lock:
            self._counts[error.code] += 1

    def counts(self) -> dict[str, int]:
        """How often, by the code of the error; a copy."""
        with self._lock:
            return dict(self._counts)

    def reject(self, delivery: Delivery, reason: str) -> None:
        """Make a dead letter of it, or drop it where there are too many."""
        with self._lock:
            wait = self._room.take(len(delivery.body) + LETTER, KEPT / DAY, KEPT, time.monotonic())
        if wait > 0.0:
            logger.error("There are too many dead letters: one from %s is dropped: %s", delivery.queue, reason[:REASON])
            delivery.ack()
        else:
            delivery.reject(reason[:REASON])
