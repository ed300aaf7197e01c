"""RabbitMQ through pika, the only module that touches it: two connections, each with an I/O thread of its own.

Publishing and consuming do not share a connection, so that acknowledgements go on while the broker blocks publishers.
Other threads hand work to an I/O thread through a queue and one wake-up for all that is in it.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pika
import pika.exceptions
from pika.adapters.select_connection import SelectConnection
from pika.channel import Channel

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.errors import (
    BrokerAuthError,
    BrokerError,
    BrokerUnavailableError,
    ConfigurationError,
    QueueMismatchError,
    UnroutableError,
)

logger = logging.getLogger(__name__)

OPERATION_TIMEOUT = 30.0
PUBLISH_DEADLINE = 60.0
"""Seconds that a message waits for a broker that is away before its publisher is told."""
MAX_BACKOFF = 5.0
Result = TypeVar("Result")


class _Link:
    """One connection, made again whenever it is lost, and the thread that does all its I/O."""

    def __init__(self, name: str, parameters: pika.URLParameters, where: str) -> None:
        self.connection: SelectConnection | None = None
        self.on_open: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._parameters = parameters
        self._where = where
        self._work: deque[Callable[[], None]] = deque()
        self._waking = False
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._settled = threading.Event()
        self._problem: Exception | None = None
        self._attempt = 0
        self._thread = threading.Thread(target=self._run, name=f"coflows-{name}", daemon=True)

    def start(self, timeout: float) -> None:
        """Connect; raises BrokerAuthError at once, BrokerUnavailableError after ``timeout`` seconds."""
        self._thread.start()
        deadline = time.monotonic() + timeout
        while not self._settled.wait(max(0.0, min(0.2, deadline - time.monotonic()))):
            if isinstance(self._problem, BrokerAuthError):
                raise self._problem
            if time.monotonic() >= deadline:
                raise BrokerUnavailableError(
                    f"Nothing answers at {self._where} within {timeout} s.",
                    hint="Start RabbitMQ there, or use embedded:// which needs nothing installed.",
                ) from self._problem

    def on_io_thread(self) -> bool:
        """Whether the caller is the I/O thread."""
        return threading.current_thread() is self._thread

    def call_soon(self, work: Callable[[], None]) -> None:
        """Do ``work`` on the I/O thread, in the order of the calls; at once when this is it."""
        if self.on_io_thread():
            work()
            return
        with self._lock:
            self._work.append(work)
            if self._waking:
                return
            self._waking = True
            connection = self.connection
        if connection is not None:
            with contextlib.suppress(pika.exceptions.ConnectionWrongStateError, OSError):
                connection.ioloop.add_callback_threadsafe(self._drain)

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._stopping.set()

        def stop() -> None:
            connection = self.connection
            if connection is not None and connection.is_open:
                connection.close()

        self.call_soon(stop)
        if not self.on_io_thread():
            self._thread.join(10.0)

    def _drain(self) -> None:
        while True:
            with self._lock:
                work, self._work = self._work, deque()
                if not work:
                    self._waking = False
                    return
            for one in work:
                try:
                    one()
                except pika.exceptions.AMQPError as error:
                    logger.debug("An operation on %s met a closed channel: %s", self._where, error)
                except Exception:
                    logger.exception("An operation on %s failed.", self._where)

    def _run(self) -> None:
        while not self._stopping.is_set():
            connection = SelectConnection(
                self._parameters,
                on_open_callback=self._opened,
                on_open_error_callback=self._failed,
                on_close_callback=self._failed,
            )
            with self._lock:
                self._waking = False
                self.connection = connection
            try:
                connection.ioloop.start()
            except Exception:
                logger.exception("The connection to %s broke.", self._where)
            with contextlib.suppress(Exception):
                connection.ioloop.close()
            with self._lock:
                self.connection = None
                self._waking = True  # Nothing to wake until the next connection; it drains what waits.
            self.on_lost()
            if not self._stopping.is_set():
                self._attempt += 1
                limit = min(MAX_BACKOFF, 0.05 * 2**self._attempt)
                self._stopping.wait(limit * random.uniform(0.5, 1.0))

    def _opened(self, connection: SelectConnection) -> None:
        self._attempt = 0
        self._problem = None
        self.on_open()
        self._settled.set()
        with self._lock:
            self._waking = True
        self._drain()

    def _failed(self, connection: SelectConnection, error: BaseException) -> None:
        self._problem = self._translate(error)
        if not self._stopping.is_set():
            logger.info("Connection to %s: %s", self._where, self._problem)
        connection.ioloop.stop()

    def _translate(self, error: BaseException) -> Exception:
        refused = (
            pika.exceptions.ProbableAuthenticationError,
            pika.exceptions.ProbableAccessDeniedError,
            pika.exceptions.AuthenticationError,
        )
        code = getattr(error, "reply_code", None)
        if isinstance(error, refused) or code in (403, 530):
            user = getattr(self._parameters.credentials, "username", "?")
            problem: Exception = BrokerAuthError(
                f"RabbitMQ at {self._where} refuses user {user!r} on vhost {self._parameters.virtual_host!r}.",
                hint="Check name and password in the URL, and `rabbitmqctl list_permissions`.",
            )
        else:
            problem = BrokerUnavailableError(f"Connection to {self._where} failed: {error!r}.")
        problem.__cause__ = error
        return problem


@dataclass(slots=True)
class _Publish:
    queue: str
    body: bytes
    headers: dict[str, str] | None
    future: Future[None]
    since: float
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    returned: bool = False


class _Publisher:
    """Publishes with confirms, pipelined; all but ``publish`` happens on the link's I/O thread."""

    def __init__(self, link: _Link, where: str) -> None:
        self._link = link
        self._where = where
        self._channel: Channel | None = None
        self._tag = 0
        self._unconfirmed: OrderedDict[int, _Publish] = OrderedDict()
        self._by_id: dict[str, _Publish] = {}
        self._waiting: deque[_Publish] = deque()
        self._closed = False
        self._timer: threading.Timer | None = None

    def publish(self, queue: str, body: bytes, headers: dict[str, str] | None = None) -> Future[None]:
        future: Future[None] = Future()
        if self._closed:
            future.set_exception(BrokerUnavailableError(f"The broker object of {self._where} is closed."))
            return future
        one = _Publish(queue, body, headers, future, time.monotonic())
        self._link.call_soon(lambda: self._send(one))
        return future

    def opened(self) -> None:
        assert self._link.connection is not None
        self._link.connection.channel(on_open_callback=self._ready)

    def lost(self) -> None:
        """What was not confirmed is sent again, before what came later."""
        self._channel = None
        self._waiting.extendleft(reversed(self._unconfirmed.values()))
        self._unconfirmed.clear()
        self._expire()

    def close(self, wait: float) -> None:
        deadline = time.monotonic() + wait
        while (self._unconfirmed or self._waiting) and time.monotonic() < deadline and self._channel is not None:
            time.sleep(0.01)
        self._closed = True
        left = [*self._unconfirmed.values(), *self._waiting]
        for one in left:
            self._resolve(one, BrokerUnavailableError(f"{self._where} was closed before it confirmed a message."))

    def _ready(self, channel: Channel) -> None:
        self._tag = 0
        channel.confirm_delivery(self._confirmed, callback=lambda _ok: self._resend(channel))
        channel.add_on_return_callback(self._returned)
        channel.add_on_close_callback(lambda _channel, reason: self._channel_closed(channel, reason))

    def _resend(self, channel: Channel) -> None:
        self._channel = channel
        waiting, self._waiting = self._waiting, deque()
        for one in waiting:
            self._send(one)

    def _send(self, one: _Publish) -> None:
        if self._channel is None or not self._channel.is_open:
            self._waiting.append(one)
            if self._timer is None:
                self._timer = threading.Timer(PUBLISH_DEADLINE + 1, self._expire)
                self._timer.daemon = True
                self._timer.start()
            return
        self._tag += 1
        one.returned = False
        self._unconfirmed[self._tag] = one
        self._by_id[one.id] = one
        properties = pika.BasicProperties(delivery_mode=2, message_id=one.id, headers=one.headers)
        self._channel.basic_publish("", one.queue, one.body, properties, mandatory=True)

    def _expire(self) -> None:
        self._timer = None
        now = time.monotonic()
        for one in [one for one in list(self._waiting) if now - one.since > PUBLISH_DEADLINE]:
            with contextlib.suppress(ValueError):
                self._waiting.remove(one)
            self._resolve(
                one, BrokerUnavailableError(f"{self._where} was away for {PUBLISH_DEADLINE:.0f} s; a message was not sent.")
            )

    def _returned(self, _channel: Channel, _method: Any, properties: pika.BasicProperties, _body: bytes) -> None:
        one = self._by_id.get(properties.message_id or "")
        if one is not None:
            one.returned = True

    def _confirmed(self, frame: Any) -> None:
        method = frame.method
        tags = [method.delivery_tag]
        if method.multiple:
            tags = [tag for tag in self._unconfirmed if tag <= method.delivery_tag]
        for tag in tags:
            one = self._unconfirmed.pop(tag, None)
            if one is None:
                continue
            if isinstance(method, pika.spec.Basic.Nack):
                self._resolve(one, BrokerError(f"RabbitMQ refused a message to {one.queue}.", hint="Is the queue full?"))
            elif one.returned:
                self._resolve(one, UnroutableError(f"There is no queue {one.queue}."))
            else:
                self._resolve(one, None)

    def _resolve(self, one: _Publish, error: Exception | None) -> None:
        self._by_id.pop(one.id, None)
        with contextlib.suppress(InvalidStateError):
            if error is None:
                one.future.set_result(None)
            else:
                one.future.set_exception(error)

    def _channel_closed(self, channel: Channel, reason: BaseException) -> None:
        if self._channel is channel:
            self._channel = None
            self._waiting.extendleft(reversed(self._unconfirmed.values()))
            self._unconfirmed.clear()
            if self._link.connection is not None and self._link.connection.is_open and not self._closed:
                logger.warning("The publishing channel to %s closed: %s", self._where, reason)
                self.opened()


class RabbitDelivery(Delivery):
    """A message on a channel; once the channel is gone, settling it does nothing."""

    def __init__(self, broker: RabbitMQBroker, channel: Channel, queue: str, method: Any, properties: Any, body: bytes):
        self.queue, self.body, self.redelivered = queue, body, method.redelivered
        headers = properties.headers or {}
        self.origin, self.reason = headers.get("coflows-origin"), headers.get("coflows-reason")
        self._broker = broker
        self._channel = channel
        self._tag = method.delivery_tag
        self._open = True

    def ack(self) -> None:
        """See Delivery."""
        self._settle(lambda: self._channel.basic_ack(self._tag))

    def requeue(self) -> None:
        """See Delivery."""
        self._settle(lambda: self._channel.basic_nack(self._tag, requeue=True))

    def reject(self, reason: str) -> None:
        """See Delivery. The copy with the reason is confirmed before the message itself goes."""
        if not self._open:
            return
        self._open = False
        target = self._broker.dead_letter_queue_of(self.queue)
        if target is None:
            self._do(lambda: self._channel.basic_ack(self._tag))
            return

        def kept(future: Future[None]) -> None:
            if future.exception() is None:
                self._do(lambda: self._channel.basic_ack(self._tag))
            else:
                # Without a copy the broker's own dead-lettering keeps it, though not the reason.
                self._do(lambda: self._channel.basic_nack(self._tag, requeue=False))

        headers = {"coflows-origin": self.queue, "coflows-reason": reason[:2000]}
        self._broker.publish_with(target, self.body, headers).add_done_callback(kept)

    def _settle(self, work: Callable[[], None]) -> None:
        if self._open:
            self._open = False
            self._do(work)

    def _do(self, work: Callable[[], None]) -> None:
        self._broker.consuming.call_soon(lambda: work() if self._channel.is_open else None)


class RabbitConsumer(Consumer):
    """A subscription on a channel of its own, made again after a reconnect."""

    def __init__(
        self, broker: RabbitMQBroker, queue: str, callback: Callable[[Delivery], None], prefetch: int
    ) -> None:
        self.queue = queue
        self.closed = False
        self._broker = broker
        self._callback = callback
        self._prefetch = prefetch
        self._channel: Channel | None = None
        self._gone = threading.Event()

    def start(self, started: Future[None] | None = None) -> None:
        """Consume; on the I/O thread. ``started`` is told how it went."""
        connection = self._broker.consuming.connection
        if self.closed or connection is None or not connection.is_open:
            return

        def opened(channel: Channel) -> None:
            self._channel = channel
            channel.add_on_close_callback(lambda _channel, reason: self._channel_closed(channel, reason, started))
            channel.add_on_cancel_callback(lambda _frame: channel.is_open and channel.close())
            channel.basic_qos(prefetch_count=self._prefetch)
            channel.basic_consume(
                self.queue, self._on_message, callback=lambda _ok: _settle(started, None)
            )

        connection.channel(on_open_callback=opened)

    def close(self) -> None:
        """See Consumer. Closing the channel gives back what is unsettled, and then lets the next consumer in."""
        if self.closed:
            return
        self.closed = True

        def close() -> None:
            channel = self._channel
            if channel is not None and channel.is_open:
                channel.close()
            else:
                self._gone.set()

        self._broker.consuming.call_soon(close)
        if not self._broker.consuming.on_io_thread():
            self._gone.wait(5.0)
        self._broker.forget(self)

    def _on_message(self, channel: Channel, method: Any, properties: Any, body: bytes) -> None:
        if self.closed:
            return
        delivery = RabbitDelivery(self._broker, channel, self.queue, method, properties, body)
        try:
            self._callback(delivery)
        except Exception:
            logger.exception("The consumer of %s failed; its message goes back.", self.queue)
            delivery.requeue()

    def _channel_closed(self, channel: Channel, reason: Any, started: Future[None] | None) -> None:
        if self._channel is not channel:
            return
        self._channel = None
        if self.closed:
            self._gone.set()
            return
        error = self._broker.translate(reason, self.queue)
        if started is not None and not started.done():
            self.closed = True
            _settle(started, error)
            return
        connection = self._broker.consuming.connection
        if connection is not None and connection.is_open:
            logger.warning("The consumer of %s was closed (%s); consuming again.", self.queue, error)
            connection.ioloop.call_later(0.5, lambda: self._broker.restore([self]))


class RabbitMQBroker(Broker):
    """See Broker. ``url`` is ``amqp://user:password@host:port/vhost`` or ``amqps://``."""

    def __init__(self, url: str, *, connect_timeout: float = 10.0) -> None:
        try:
            parameters = pika.URLParameters(url)
        except Exception as error:
            raise ConfigurationError(
                "The broker URL cannot be read.", hint="Write amqp://user:password@host:5672/vhost."
            ) from error
        parameters.heartbeat = 30
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = max(connect_timeout, 1.0)
        scheme = "amqps" if parameters.ssl_options else "amqp"
        vhost = "" if parameters.virtual_host == "/" else parameters.virtual_host
        user = getattr(parameters.credentials, "username", "")
        self.url = f"{scheme}://{user}@{parameters.host}:{parameters.port}/{vhost}"
        self._user = user
        self._declared: dict[str, QueueSpec] = {}
        self._consumers: list[RabbitConsumer] = []
        self._get_channel: Channel | None = None
        self._closed = False
        self._lock = threading.Lock()
        publishing = _Link("publish", parameters, self.url)
        self.consuming = _Link("consume", parameters, self.url)
        self._publisher = _Publisher(publishing, self.url)
        self._publishing = publishing
        publishing.on_open, publishing.on_lost = self._publisher.opened, self._publisher.lost
        self.consuming.on_open = lambda: self.restore(list(self._consumers))
        self.consuming.on_lost = self._lost
        try:
            publishing.start(connect_timeout)
            self.consuming.start(connect_timeout)
        except BaseException:
            self.close()
            raise

    def declare(self, *queues: QueueSpec) -> None:
        """See Broker."""
        done: list[tuple[QueueSpec, Future[None]]] = [(spec, self._declare(spec)) for spec in queues]
        for spec, future in done:
            self._wait(future)
            self._declared[spec.name] = spec

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        """See Broker."""
        return self._publisher.publish(queue, body)

    def publish_with(self, queue: str, body: bytes, headers: dict[str, str]) -> Future[None]:
        """``publish_async`` with headers."""
        return self._publisher.publish(queue, body, headers)

    def consume(self, queue: str, callback: Callable[[Delivery], None], *, prefetch: int = 100) -> Consumer:
        """See Broker."""
        consumer = RabbitConsumer(self, queue, callback, prefetch)
        started: Future[None] = Future()
        self._check_open()
        self.consuming.call_soon(lambda: consumer.start(started))
        self._wait(started)
        with self._lock:
            self._consumers.append(consumer)
        return consumer

    def get(self, queue: str) -> Delivery | None:
        """See Broker."""
        found: Future[Delivery | None] = Future()

        def take(channel: Channel) -> None:
            channel.basic_get(
                queue,
                lambda ch, method, properties, body: _settle(
                    found, RabbitDelivery(self, ch, queue, method, properties, body)
                ),
            )
            channel.add_callback(lambda _frame: _settle(found, None), [pika.spec.Basic.GetEmpty], one_shot=True)

        if not self.exists(queue):
            raise UnroutableError(f"There is no queue {queue}.")
        self._check_open()
        self.consuming.call_soon(lambda: self._with_get_channel(take, found))
        return self._wait(found)

    def exists(self, queue: str) -> bool:
        """See Broker."""

        def ask(channel: Channel, done: Callable[[Any], None]) -> None:
            channel.queue_declare(queue, passive=True, callback=done)

        try:
            self._wait(self._operate(ask, queue))
        except UnroutableError:
            return False
        return True

    def delete(self, queue: str) -> None:
        """See Broker."""
        self._declared.pop(queue, None)
        self._wait(self._operate(lambda channel, done: channel.queue_delete(queue, callback=done), queue))

    def close(self) -> None:
        """See Broker."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for consumer in list(self._consumers):
            consumer.close()
        self._publisher.close(5.0)
        self._publishing.close()
        self.consuming.close()

    # -- for deliveries, consumers and links -------------------------------------------------------------------

    def dead_letter_queue_of(self, queue: str) -> str | None:
        """Where this object knows a queue's rejected messages to go."""
        spec = self._declared.get(queue)
        return None if spec is None else spec.dead_letter_queue

    def forget(self, consumer: RabbitConsumer) -> None:
        """A consumer was closed."""
        with self._lock:
            if consumer in self._consumers:
                self._consumers.remove(consumer)

    def restore(self, consumers: list[RabbitConsumer]) -> None:
        """Consume again, on queues that are made again when they are gone; on the I/O thread."""
        for consumer in consumers:
            spec = self._declared.get(consumer.queue)
            if spec is None:
                consumer.start()
                continue
            self._declare(spec).add_done_callback(lambda _future, consumer=consumer: consumer.start())  # type: ignore[misc]

    def translate(self, reason: Any, queue: str) -> BrokerError:
        """What a closed channel means for who used the queue."""
        code, text = getattr(reason, "reply_code", 0), getattr(reason, "reply_text", str(reason))
        problem: BrokerError
        if code == 406:
            problem = QueueMismatchError(
                f"Queue {queue} exists at {self.url} with other properties: {text}.",
                hint=f"Delete it (rabbitmqctl delete_queue {queue}), or use another vhost or dispatch point.",
            )
        elif code == 403:
            problem = BrokerAuthError(
                f"RabbitMQ at {self.url} does not let user {self._user!r} use queue {queue}: {text}.",
                hint="Give the account permission (rabbitmqctl set_permissions), or use its own queues.",
            )
        elif code == 404:
            problem = UnroutableError(f"There is no queue {queue} at {self.url}.")
        else:
            problem = BrokerUnavailableError(f"{self.url} closed a channel of queue {queue}: {reason!r}.")
        if isinstance(reason, BaseException):
            problem.__cause__ = reason
        return problem

    # -- inside ------------------------------------------------------------------------------------------------

    def _declare(self, spec: QueueSpec) -> Future[None]:
        arguments: dict[str, Any] = {}
        if spec.single_active:
            arguments["x-single-active-consumer"] = True
        if spec.expires is not None:
            arguments["x-expires"] = max(1, int(spec.expires * 1000))
        if spec.dead_letter_queue is not None:
            arguments |= {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": spec.dead_letter_queue}

        def declare(channel: Channel, done: Callable[[Any], None]) -> None:
            channel.queue_declare(spec.name, durable=True, arguments=arguments, callback=done)

        return self._operate(declare, spec.name)

    def _operate(self, work: Callable[[Channel, Callable[[Any], None]], None], queue: str) -> Future[None]:
        """Do one operation on a channel of its own: what it does wrong closes no other's."""
        future: Future[None] = Future()
        self._check_open()

        def run() -> None:
            connection = self.consuming.connection
            if connection is None or not connection.is_open:
                _settle(future, BrokerUnavailableError(f"{self.url} does not answer.", hint="It is tried again."))
                return

            def opened(channel: Channel) -> None:
                channel.add_on_close_callback(
                    lambda _channel, reason: _settle(future, self.translate(reason, queue))
                )

                def done(_frame: Any) -> None:
                    _settle(future, None)
                    if channel.is_open:
                        channel.close()

                work(channel, done)

            connection.channel(on_open_callback=opened)

        self.consuming.call_soon(run)
        return future

    def _with_get_channel(self, use: Callable[[Channel], None], found: Future[Any]) -> None:
        channel, connection = self._get_channel, self.consuming.connection
        if channel is not None and channel.is_open:
            use(channel)
        elif connection is None or not connection.is_open:
            _settle(found, BrokerUnavailableError(f"{self.url} does not answer."))
        else:

            def opened(channel: Channel) -> None:
                self._get_channel = channel
                use(channel)

            connection.channel(on_open_callback=opened)

    def _lost(self) -> None:
        self._get_channel = None

    def _check_open(self) -> None:
        if self._closed:
            raise BrokerUnavailableError(f"The broker object of {self.url} is closed.", hint="Connect again.")

    def _wait(self, future: Future[Result]) -> Result:
        try:
            return future.result(OPERATION_TIMEOUT)
        except TimeoutError as error:
            raise BrokerUnavailableError(
                f"{self.url} did not answer within {OPERATION_TIMEOUT:.0f} s.", hint="It is tried again; is it up?"
            ) from error


def _settle(future: Future[Any] | None, outcome: Any) -> None:
    if future is None:
        return
    with contextlib.suppress(InvalidStateError):
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
