"""Deliveries and consumers of the embedded broker."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from coflows.broker.base import Consumer, Delivery
from coflows.broker.embedded_topology import Claim

if TYPE_CHECKING:
    from coflows.broker.embedded import EmbeddedBroker

logger = logging.getLogger(__name__)


class EmbeddedDelivery(Delivery):
    """A message taken from the file."""

    __slots__ = ("_consumer", "_id", "body", "origin", "queue", "reason", "redelivered")

    def __init__(self, consumer: EmbeddedConsumer, queue: str, claim: Claim) -> None:
        self.queue, self.body, self.redelivered = queue, claim.body, claim.redelivered
        self.origin, self.reason = claim.origin, claim.reason
        self._consumer = consumer
        self._id = claim.id

    def ack(self) -> None:
        """See Delivery."""
        self._consumer.ack(self._id)

    def requeue(self) -> None:
        """See Delivery."""
        self._consumer.requeue(self._id)

    def reject(self, reason: str) -> None:
        """See Delivery."""
        self._consumer.reject(self._id, reason)


class EmbeddedConsumer(Consumer):
    """A subscription. Its place in the file belongs to who has the broker's turn: up to ``cursor`` everything was
    taken, up to ``reserved`` nobody else takes anything, and ``behind`` says that there may be more."""

    def __init__(self, broker: EmbeddedBroker, queue: str, callback: Callable[[Delivery], None], prefetch: int) -> None:
        self.queue = queue
        self.queue_id = 0
        self.id = 0
        self.prefetch = prefetch
        self.unsettled: dict[int, bool] = {}
        """False for those that are settled and wait for the transaction that says so."""
        self.reserved = 0
        self.cursor = 0
        self.behind = True
        self.closed = False
        self._broker = broker
        self._callback = callback
        self._calling = threading.RLock()
        self._settling = threading.Lock()
        self._taken = 0

    @property
    def room(self) -> int:
        """How many more messages it may have."""
        return self.prefetch - self._taken

    def take(self, claim: Claim, queue: str) -> EmbeddedDelivery:
        """A message comes into its hands."""
        with self._settling:
            self.unsettled[claim.id] = True
            self._taken += 1
        return EmbeddedDelivery(self, queue, claim)

    def ack(self, message: int) -> None:
        """See Delivery."""
        with self._settling:
            if not self._settle(message):
                return
            # In this order: who looks for messages that are in nobody's hands finds it here or there.
            self._broker.acked(message)
            del self.unsettled[message]
        self._broker.has_acked(self)

    def requeue(self, message: int) -> None:
        """See Delivery."""
        with self._settling:
            if not self._settle(message):
                return
        self._broker.requeue(self, message)

    def reject(self, message: int, reason: str) -> None:
        """See Delivery."""
        with self._settling:
            if not self._settle(message):
                return
        self._broker.reject(self, message, reason)

    def _settle(self, message: int) -> bool:
        if self.closed or not self.unsettled.get(message):
            return False
        self.unsettled[message] = False
        self._taken -= 1
        return True

    def forget(self, message: int) -> None:
        """The file says that it is settled."""
        self.unsettled.pop(message, None)

    def deliver(self, delivery: EmbeddedDelivery) -> None:
        """Call the callback, unless closed."""
        with self._calling:
            if self.closed:
                return
            try:
                self._callback(delivery)
            except Exception:
                logger.exception("The consumer of %s failed; its message goes back.", self.queue)
                delivery.requeue()

    def close(self) -> None:
        """See Consumer."""
        with self._calling, self._settling:
            if self.closed:
                return
            self.closed = True
        self._broker.remove(self)
