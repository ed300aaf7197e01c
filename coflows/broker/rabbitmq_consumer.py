"""A subscription to one queue of RabbitMQ, on a channel of its own, that is made again after a reconnect."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from coflows.broker.base import Consumer, Delivery
from coflows.broker.rabbitmq_acks import Acks
from coflows.broker.rabbitmq_delivery import Bury, RabbitDelivery
from coflows.broker.rabbitmq_link import Link, settle
from coflows.broker.rabbitmq_server import RabbitServer

logger = logging.getLogger(__name__)

FIRST_BACKOFF = 0.1
MAX_BACKOFF = 5.0
CLOSE_PATIENCE = 10.0


class RabbitConsumer(Consumer):
    """``started`` resolves when the server has taken the subscription, and fails when it refuses the first one.

    ``restore`` is called when the server ended the subscription: it sees to the queue and calls ``start`` again.
    """

    def __init__(
        self,
        link: Link,
        server: RabbitServer,
        queue: str,
        callback: Callable[[Delivery], None],
        prefetch: int,
        *,
        bury: Bury,
        restore: Callable[[RabbitConsumer], None],
        forget: Callable[[RabbitConsumer], None],
    ) -> None:
        self.queue = queue
        self.started: Future[None] = Future()
        self._link = link
        self._server = server
        self._callback = callback
        self._prefetch = prefetch
        self._bury = bury
        self._restore = restore
        self._forget = forget
        self._channel: Any = None
        self._acks: Acks | None = None
        self._attempt = 0
        self._closed = False
        self._gone = threading.Event()

    def close(self) -> None:
        """See Consumer."""
        self._link.call_soon(self._close)
        if not self._link.on_io_thread() and not self._gone.wait(CLOSE_PATIENCE):
            logger.warning("%s has not yet said that it closed the consumer of %s.", self._server.url, self.queue)

    # -- on the I/O thread -------------------------------------------------------------------------------------

    def start(self) -> None:
        """Subscribe, unless closed, subscribed or without a connection."""
        connection = self._link.connection
        if self._closed or self._channel is not None or connection is None:
            return
        self._channel = connection.channel(on_open_callback=self._opened)
        self._channel.add_on_close_callback(self._channel_closed)

    def _opened(self, channel: Any) -> None:
        channel.add_on_cancel_callback(lambda _frame: self._cancelled(channel))
        self._acks = Acks(self._link, channel, self._prefetch)
        channel.basic_qos(prefetch_count=self._prefetch)
        channel.basic_consume(self.queue, self._deliver, callback=lambda _ok: self._subscribed())

    def _cancelled(self, channel: Any) -> None:
        if channel.is_open:
            if self._acks is not None:
                self._acks.flush()
            channel.close(reply_text="the queue was deleted")

    def _subscribed(self) -> None:
        self._attempt = 0
        settle(self.started, None)

    def _deliver(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        acks = self._acks
        assert acks is not None and acks.channel is channel
        delivery = RabbitDelivery(self._link, self._bury, acks, self.queue, method, properties, body)
        try:
            self._callback(delivery)
        except Exception:
            logger.exception("The consumer of %s failed; its message goes back.", self.queue)
            delivery.requeue()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._forget(self)
            settle(self.started, self._server.closed())
        channel = self._channel
        if channel is None or channel.is_closed:
            self._gone.set()
        elif not channel.is_closing:
            # pika would cancel first and close then; in between the next consumer would get what comes after the
            # unsettled messages. Closing alone gives them back before. pika skips what it thinks is cancelled.
            if self._acks is not None:
                self._acks.flush()
            channel._cancelled.update(channel.consumer_tags)
            channel.close()

    def _channel_closed(self, _channel: Any, reason: BaseException) -> None:
        self._channel = None
        if self._closed:
            self._gone.set()
            return
        if self._link.connection is None:
            return  # All consumers start again when it is back.
        if settle(self.started, self._server.channel_error(reason, self.queue)):
            self._close()
            return
        if self._attempt == 0:
            logger.warning("The subscription to %s ended (%s); subscribing again.", self.queue, reason)
        limit = min(MAX_BACKOFF, FIRST_BACKOFF * 2**self._attempt)
        self._attempt += 1
        self._link.call_later(limit, lambda: self._restore(self))
