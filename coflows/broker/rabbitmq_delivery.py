"""A message from RabbitMQ in a consumer's hands, and the headers that a dead letter carries."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from coflows.broker.base import Delivery
from coflows.broker.rabbitmq_acks import Acks
from coflows.broker.rabbitmq_link import Link
from coflows.errors import UnroutableError

logger = logging.getLogger(__name__)

ORIGIN, REASON = "coflows-origin", "coflows-reason"
MAX_REASON = 4000
"""Characters; headers must fit a frame."""
Bury = Callable[[str, bytes, dict[str, str]], "Future[None] | None"]
"""Publish a copy to the dead-letter queue of the queue named; None where no such queue is known."""


class RabbitDelivery(Delivery):
    """Belongs to one channel; once that is gone, settling does nothing."""

    def __init__(
        self, link: Link, bury: Bury, acks: Acks, queue: str, method: Any, properties: Any, body: bytes
    ) -> None:
        self.queue, self.body, self.redelivered = queue, body, method.redelivered
        self.origin, self.reason = death(properties.headers or {})
        self._link = link
        self._bury = bury
        self._acks = acks
        self._tag = method.delivery_tag
        self._settled = False

    def ack(self) -> None:
        """See Delivery."""
        self._settle(self._ack)

    def requeue(self) -> None:
        """See Delivery."""
        self._settle(lambda: self._nack(requeue=True))

    def reject(self, reason: str) -> None:
        """See Delivery. The broker's own dead-lettering cannot carry a reason, so a copy is published; the message
        goes when the copy is confirmed."""
        self._settle(lambda: self._reject(reason))

    # -- on the I/O thread -------------------------------------------------------------------------------------

    def _settle(self, work: Callable[[], None]) -> None:
        def settle() -> None:
            # Settling a tag twice would cost the whole channel, so it is decided on one thread.
            if not self._settled:
                self._settled = True
                work()

        self._link.call_soon(settle)

    def _ack(self) -> None:
        if self._acks.channel.is_open:
            self._acks.ack(self._tag)

    def _nack(self, *, requeue: bool) -> None:
        if self._acks.channel.is_open:
            self._acks.settled(self._tag)
            self._acks.channel.basic_nack(self._tag, requeue=requeue)

    def _reject(self, reason: str) -> None:
        if not self._acks.channel.is_open:
            return
        copy = self._bury(self.queue, self.body, {ORIGIN: self.queue, REASON: reason[:MAX_REASON]})
        if copy is None:
            self._nack(requeue=False)
        else:
            copy.add_done_callback(lambda future: self._link.call_soon(lambda: self._buried(future.exception())))

    def _buried(self, error: BaseException | None) -> None:
        if error is None:
            self._ack()
        elif isinstance(error, UnroutableError):
            logger.warning("A message rejected from %s is dropped, its dead-letter queue is gone.", self.queue)
            self._nack(requeue=False)
        else:
            self._nack(requeue=True)


def death(headers: dict[str, Any]) -> tuple[str | None, str | None]:
    """Where a dead letter comes from, and why it is one. Pure. ``x-death`` counts first: the server writes at its head,
    over what a sender had written there; a copy of ours has none. What is no dead letter has in its headers whatever
    its sender likes."""
    said = headers.get(ORIGIN), headers.get(REASON)
    deaths = headers.get("x-death")
    if isinstance(deaths, list) and deaths and isinstance(deaths[0], dict):
        said = deaths[0].get("queue"), deaths[0].get("reason")
    origin, reason = (text if isinstance(text, str) else None for text in said)
    return origin, reason
