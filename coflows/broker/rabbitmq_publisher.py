"""Publishes with confirms, many at a time, and sends again what was not confirmed when a connection went."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import pika
import pika.exceptions
import pika.spec

from coflows.broker.rabbitmq_link import Link, settle
from coflows.broker.rabbitmq_server import RabbitServer
from coflows.errors import BrokerError, BrokerUnavailableError

EXPIRY_CHECK = 0.5
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
"""Seconds after which a message that the server refused, because its queue is full, is sent again."""


@dataclass(slots=True, eq=False)
class _Message:
    exchange: str
    queue: str
    body: bytes
    headers: dict[str, str] | None
    future: Future[None]
    since: float
    returned: bool = False
    pause: float = FIRST_PAUSE


class Publisher:
    """``publish`` and ``close`` are for any thread; the rest runs on the link's."""

    def __init__(self, link: Link, server: RabbitServer, deadline: float) -> None:
        self.on_missing: Callable[[str], None] = lambda exchange: None
        """Called on the link's thread for an exchange that turns out not to be there."""
        self._link = link
        self._server = server
        self._deadline = deadline
        self._channel: Any = None
        self._tag = 0
        self._unconfirmed: OrderedDict[int, _Message] = OrderedDict()
        self._waiting: deque[_Message] = deque()
        self._refused: set[_Message] = set()
        self._away_since = 0.0
        self._expiring = False
        # After a refusal: one message at a time, to find whose fault it was.
        self._probing = False
        self._closing = False
        self._closed = False
        self._idle = threading.Event()
        link.on_open = self._open_channel
        link.on_lost = self._lost

    def publish(
        self, queue: str, body: bytes, headers: dict[str, str] | None = None, exchange: str = ""
    ) -> Future[None]:
        """See Broker.publish_async. An exchange that is not there costs more than one that leads nowhere: what waits is
        then sent one by one."""
        message = _Message(exchange, queue, body, headers, Future(), time.monotonic())
        self._link.call_soon(lambda: self._take(message))
        return message.future

    def close(self, patience: float) -> None:
        """Wait up to ``patience`` seconds for confirms, unless there is no connection; then fail what is left."""
        self._link.call_soon(self._finish)
        if not self._link.on_io_thread():
            self._idle.wait(patience)
        self._link.call_soon(self._abandon)

    # -- on the I/O thread -------------------------------------------------------------------------------------

    def _take(self, message: _Message) -> None:
        if self._closed:
            settle(message.future, self._server.closed())
            return
        self._waiting.append(message)
        self._pump()

    def _pump(self) -> None:
        channel = self._channel
        if channel is None or not channel.is_open:
            return
        while self._waiting and not (self._probing and self._unconfirmed):
            self._send(channel, self._waiting.popleft())
        if not self._waiting and not self._unconfirmed:
            self._probing = False
            if self._closing:
                self._idle.set()

    def _send(self, channel: Any, message: _Message) -> None:
        message.returned = False
        # The id finds the message again when the server returns it, which it does before it confirms it.
        properties = pika.BasicProperties(delivery_mode=2, message_id=str(self._tag + 1), headers=message.headers)
        try:
            channel.basic_publish(message.exchange, message.queue, message.body, properties, mandatory=True)
        except pika.exceptions.AMQPError as error:
            if not channel.is_open:
                self._waiting.appendleft(message)
                return
            problem = BrokerError(f"A message to queue {message.queue} cannot be sent: {error!r}.")
            problem.__cause__ = error
            settle(message.future, problem)
            return
        self._tag += 1
        self._unconfirmed[self._tag] = message

    def _open_channel(self) -> None:
        connection = self._link.connection
        if connection is not None:
            connection.channel(on_open_callback=self._select_confirms).add_on_close_callback(self._channel_closed)

    def _select_confirms(self, channel: Any) -> None:
        channel.add_on_return_callback(self._returned)
        channel.confirm_delivery(self._confirmed, callback=lambda _ok: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._channel = channel
        self._tag = 0
        self._pump()

    def _returned(self, _channel: Any, _method: Any, properties: Any, _body: bytes) -> None:
        message = self._unconfirmed.get(int(properties.message_id))
        if message is not None:
            message.returned = True

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        refused = isinstance(method, pika.spec.Basic.Nack)
        if not method.multiple:
            self._resolve(method.delivery_tag, refused)
        else:
            while self._unconfirmed and next(iter(self._unconfirmed)) <= method.delivery_tag:
                self._resolve(next(iter(self._unconfirmed)), refused)
        if self._probing or self._closing:
            self._pump()

    def _resolve(self, tag: int, refused: bool) -> None:
        message = self._unconfirmed.pop(tag, None)
        if message is None:
            return
        outcome: BrokerError | None = None
        if refused and not self._closing and time.monotonic() - message.since < self._deadline:
            self._refused.add(message)
            self._link.call_later(message.pause, lambda: self._again(message))
            message.pause = min(2 * message.pause, LONGEST_PAUSE)
            return
        if refused:
            outcome = BrokerError(
                f"RabbitMQ at {self._server.url} refused a message to queue {message.queue}.", hint="Is the queue full?"
            )
        elif message.returned:
            outcome = self._server.unroutable(message.queue)
        settle(message.future, outcome)

    def _again(self, message: _Message) -> None:
        if message in self._refused:
            self._refused.remove(message)
            self._take(message)

    def _channel_closed(self, _channel: Any, reason: BaseException) -> None:
        self._channel = None
        if isinstance(reason, pika.exceptions.ChannelClosedByBroker) and self._unconfirmed:
            # A message that may not be sent, or is too big, takes the channel with it. Alone it was the one.
            if len(self._unconfirmed) == 1:
                _, message = self._unconfirmed.popitem()
                settle(message.future, self._refusal(reason, message))
            self._probing = True
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        if not self._closed:
            self._open_channel()

    def _refusal(self, reason: BaseException, message: _Message) -> BrokerError:
        queue, code = message.queue, getattr(reason, "reply_code", 0)
        if code == 404:
            self.on_missing(message.exchange)
        if code in (403, 404):
            return self._server.channel_error(reason, queue)
        problem = BrokerError(f"RabbitMQ at {self._server.url} refused a message to queue {queue}: {reason}.")
        problem.__cause__ = reason
        return problem

    def _lost(self) -> None:
        self._away_since = time.monotonic()
        if self._closing:
            self._idle.set()
        if not self._expiring:
            self._expiring = True
            self._expire()

    def _expire(self) -> None:
        """Tell the publishers of messages that have waited too long, for as long as the broker is away."""
        if self._channel is not None or self._closed:
            self._expiring = False
            return
        now = time.monotonic()
        kept: deque[_Message] = deque()
        for message in self._waiting:
            if now - max(message.since, self._away_since) < self._deadline:
                kept.append(message)
            else:
                settle(message.future, self._expired())
        self._waiting = kept
        self._link.call_later(EXPIRY_CHECK, self._expire)

    def _expired(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(
            f"{self._server.url} has been away for {self._deadline:.0f} s; a message may not have been kept.",
            hint="It is tried again in the background; send the message again once RabbitMQ is back.",
        )

    def _finish(self) -> None:
        self._closing = True
        if self._link.connection is None or not (self._waiting or self._unconfirmed):
            self._idle.set()

    def _abandon(self) -> None:
        self._closed = True
        for message in (*self._unconfirmed.values(), *self._waiting, *self._refused):
            settle(
                message.future,
                BrokerUnavailableError(
                    f"The broker object of {self._server.url} was closed before a message was confirmed."
                ),
            )
        self._unconfirmed.clear()
        self._waiting.clear()
        self._refused.clear()
