"""A delivery and the messages in it: it is settled when all of them are."""

from __future__ import annotations

import threading
from collections.abc import Callable

from coflows.broker.base import Delivery


class Parcel:
    """A delivery with one message or many: acknowledged when all of them are done, given back if one is to come
    again, else rejected if one cannot be read. Thread-safe."""

    def __init__(self, delivery: Delivery, count: int, reject: Callable[[str], None] | None = None) -> None:
        """``reject`` does so, for a reason, instead of the delivery itself."""
        self.delivery = delivery
        self._reject = reject or delivery.reject
        self._left = count
        self._again = False
        self._reason: str | None = None
        self._lock = threading.Lock()

    def settle(self, *, again: bool = False) -> None:
        """One of its messages is done, or to be delivered again."""
        self._settle(1, again, None)

    def reject(self, count: int, reason: str) -> None:
        """Nobody can read so many of its messages: it goes to the dead letters, with the first reason, when the others
        are done."""
        self._settle(count, False, reason)

    def _settle(self, count: int, again: bool, reason: str | None) -> None:
        with self._lock:
            self._left -= count
            self._again = self._again or again
            self._reason = self._reason or reason
            if self._left:
                return
        if self._again:
            self.delivery.requeue()
        elif self._reason is not None:
            self._reject(self._reason)
        else:
            self.delivery.ack()
