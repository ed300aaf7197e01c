"""Takes single messages from RabbitMQ, on one channel that stays open, since they stay unsettled for long."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Any

import pika.spec

from coflows.broker.base import Delivery
from coflows.broker.rabbitmq_acks import Acks
from coflows.broker.rabbitmq_delivery import Bury, RabbitDelivery
from coflows.broker.rabbitmq_link import Link, settle
from coflows.broker.rabbitmq_server import RabbitServer

Request = tuple[str, "Future[Delivery | None]"]


class Getter:
    """``get`` is for any thread; the rest runs on the link's. A channel can ask for one message at a time."""

    def __init__(self, link: Link, server: RabbitServer, bury: Bury) -> None:
        self._link = link
        self._server = server
        self._bury = bury
        self._channel: Any = None
        self._requests: deque[Request] = deque()
        self._asked = False
        self._closed = False

    def get(self, queue: str) -> Future[Delivery | None]:
        """Ask for a message; None when there is none. Asked again after a reconnect."""
        future: Future[Delivery | None] = Future()
        self._link.call_soon(lambda: self._take((queue, future)))
        return future

    def resume(self) -> None:
        """Ask for what was not answered before the connection went."""
        self._pump()

    def close(self) -> None:
        """Fail what is pending."""
        self._closed = True
        for _, future in self._requests:
            settle(future, self._server.closed())
        self._requests.clear()

    def _take(self, request: Request) -> None:
        if self._closed:
            settle(request[1], self._server.closed())
            return
        self._requests.append(request)
        self._pump()

    def _pump(self) -> None:
        while self._requests and self._requests[0][1].done():
            self._requests.popleft()
        if not self._requests or self._asked:
            return
        if self._channel is None:
            self._open()
        elif self._channel.is_open:
            self._asked = True
            self._channel.basic_get(self._requests[0][0], self._got)

    def _open(self) -> None:
        connection = self._link.connection
        if connection is None:
            return

        def opened(channel: Any) -> None:
            channel.add_callback(lambda _frame: self._answer(None), [pika.spec.Basic.GetEmpty], one_shot=False)
            self._pump()

        self._channel = connection.channel(on_open_callback=opened)
        self._channel.add_on_close_callback(self._channel_closed)

    def _got(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        queue = self._requests[0][0]
        acks = Acks(self._link, channel, 1)
        self._answer(RabbitDelivery(self._link, self._bury, acks, queue, method, properties, body))

    def _answer(self, delivery: RabbitDelivery | None) -> None:
        self._asked = False
        _, future = self._requests.popleft()
        if not settle(future, delivery) and delivery is not None:
            delivery.requeue()  # Whoever asked for it has left.
        self._pump()

    def _channel_closed(self, _channel: Any, reason: BaseException) -> None:
        self._channel = None
        if self._link.connection is not None and self._asked:
            queue, future = self._requests.popleft()
            settle(future, self._server.channel_error(reason, queue))
        self._asked = False
        self._pump()
