"""A delivery and the messages in it: it is settled when all of them are."""

from __future__ import annotations

import threading

from coflows.broker.base import Delivery


class Parcel:
    """A delivery with one message or many: acknowledged when all of them are done, given back if one is to come
    again. Thread-safe."""

    def __init__(self, delivery: Delivery, count: int) -> None:
        self.delivery = delivery
        self._left = count
        self._again = False
        self._lock = threading.Lock()

    def settle(self, *, again: bool = False) -> None:
        """One of its messages is done, or to be delivered again."""
        with self._lock:
            self._left -= 1
            self._again = self._again or again
            if self._left:
                return
        if self._again:
            self.delivery.requeue()
        else:
            self.delivery.ack()
