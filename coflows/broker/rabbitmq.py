"""RabbitMQ through pika, over two connections, so that acknowledgements go on while the server blocks publishers."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.broker.rabbitmq_consumer import RabbitConsumer
from coflows.broker.rabbitmq_doors import Doors
from coflows.broker.rabbitmq_getter import Getter
from coflows.broker.rabbitmq_link import Link
from coflows.broker.rabbitmq_operations import Operations
from coflows.broker.rabbitmq_publisher import Publisher
from coflows.broker.rabbitmq_server import RabbitServer
from coflows.broker.rabbitmq_standing import Standing
from coflows.broker.rabbitmq_thread import IoThread
from coflows.errors import QueueMismatchError, UnroutableError

PUBLISH_DEADLINE = 60.0
CLOSE_PATIENCE = 5.0
"""Seconds that unconfirmed messages get when the object is closed."""


class RabbitMQBroker(Broker):
    """See Broker. ``url`` is ``amqp://user:password@host:port/vhost`` or ``amqps://``.

    ``connect_timeout`` bounds the wait for the first connection; ``publish_deadline`` is how many seconds a message
    waits for a server that is away before its future fails.
    """

    def __init__(self, url: str, *, connect_timeout: float = 10.0, publish_deadline: float = PUBLISH_DEADLINE) -> None:
        self._server = RabbitServer.from_url(url)
        self.url = self._server.url
        self._declared: dict[str, QueueSpec] = {}
        self._consumers: list[RabbitConsumer] = []
        self._closed = threading.Event()
        self._thread = IoThread("coflows-rabbitmq", self._start_over)
        self._publishing = Link(self._server, self._thread)
        self._consuming = Link(self._server, self._thread)
        self._publisher = Publisher(self._publishing, self._server, publish_deadline)
        self._operations = Operations(self._consuming, self._server)
        self._getter = Getter(self._consuming, self._server, self._bury)
        self._standing = Standing(self._operations, self._server.user)
        doors = Doors(self._consuming, self._server, self._operations, self._publisher, publish_deadline)
        self._publish = doors.publish if self._standing.account else self._publisher.publish
        self._consuming.on_open = self._resume
        deadline = time.monotonic() + connect_timeout
        try:
            for link in (self._publishing, self._consuming):
                link.start()
            self._thread.start()
            for link in (self._publishing, self._consuming):
                link.wait_open(deadline)
            self._standing.look()
        except BaseException:
            self.close()
            raise

    def declare(self, *queues: QueueSpec) -> None:
        """See Broker."""
        asked = [(spec, self._operations.start(spec.name, self._standing.declaration(spec))) for spec in queues]
        for spec, future in asked:
            try:
                self._operations.wait(future)
            except QueueMismatchError:
                # Made before its user had an account, perhaps.
                if not self._standing.account or spec.dead_letter_queue is None:
                    raise
                self._operations.run(spec.name, self._standing.declaration(spec, before=True))
            self._declared[spec.name] = spec

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        """See Broker."""
        return self._publish(queue, body)

    def consume(self, queue: str, callback: Callable[[Delivery], None], *, prefetch: int = 100) -> Consumer:
        """See Broker."""
        consumer = RabbitConsumer(
            self._consuming,
            self._server,
            queue,
            callback,
            prefetch,
            bury=self._bury,
            restore=self._restore,
            forget=self._forget,
        )
        self._consuming.call_soon(lambda: self._add(consumer))
        try:
            self._operations.wait(consumer.started)
        except BaseException:
            consumer.close()
            raise
        return consumer

    def get(self, queue: str) -> Delivery | None:
        """See Broker."""
        # Asking a missing queue for a message would close the channel that holds the messages taken before.
        if not self.exists(queue):
            raise self._server.unroutable(queue)
        return self._operations.wait(self._getter.get(queue))

    def exists(self, queue: str) -> bool:
        """See Broker."""
        try:
            self._operations.run(queue, lambda channel, done: channel.queue_declare(queue, passive=True, callback=done))
        except UnroutableError:
            return False
        return True

    def delete(self, queue: str) -> None:
        """See Broker."""
        spec = self._declared.pop(queue, None)
        self._operations.run(queue, lambda channel, done: channel.queue_delete(queue, callback=done))
        exchange = self._standing.exchange_behind(queue, spec)
        if exchange is not None:
            self._operations.run(queue, lambda channel, done: channel.exchange_delete(exchange, callback=done))

    def close(self) -> None:
        """See Broker."""
        if self._closed.is_set():
            return
        self._closed.set()
        for consumer in list(self._consumers):
            consumer.close()
        self._publisher.close(CLOSE_PATIENCE)
        self._consuming.call_soon(self._operations.close)
        self._consuming.call_soon(self._getter.close)
        # One after the other; the thread ends with the second.
        self._publishing.close(lambda: self._consuming.close(self._thread.stop))
        self._thread.join(4 * CLOSE_PATIENCE)

    def _start_over(self) -> None:
        for link in (self._publishing, self._consuming):
            link.start_over()

    # -- for deliveries ----------------------------------------------------------------------------------------

    def _bury(self, queue: str, body: bytes, headers: dict[str, str]) -> Future[None] | None:
        spec = self._declared.get(queue)
        if spec is None or spec.dead_letter_queue is None:
            return None
        exchange = self._standing.dead_letter_exchange(spec.dead_letter_queue)
        return self._publisher.publish(spec.dead_letter_queue, body, headers, exchange)

    # -- on the consuming connection's thread ------------------------------------------------------------------

    def _add(self, consumer: RabbitConsumer) -> None:
        if self._closed.is_set():
            consumer.close()
            return
        self._consumers.append(consumer)
        consumer.start()

    def _forget(self, consumer: RabbitConsumer) -> None:
        if consumer in self._consumers:
            self._consumers.remove(consumer)

    def _restore(self, consumer: RabbitConsumer) -> None:
        """The server ended a subscription, perhaps because the queue was deleted."""
        spec = self._declared.get(consumer.queue)
        self._declare_all(deque([spec] if spec else []), consumer.start)

    def _resume(self) -> None:
        """There is a new connection: first the queues, then who consumes them and what was asked meanwhile."""

        def go_on() -> None:
            for consumer in list(self._consumers):
                consumer.start()
            self._operations.resume()
            self._getter.resume()

        declared = deque(list(self._declared.values()))
        if declared:
            self._standing.look_again(lambda: self._declare_all(declared, go_on))
        else:
            go_on()

    def _declare_all(self, specs: deque[QueueSpec], then: Callable[[], None]) -> None:
        """One after the other; a server bounds the channels that are open at a time."""
        if not specs:
            then()
            return
        spec = specs.popleft()
        future = self._operations.start(spec.name, self._standing.declaration(spec))
        # A queue that has other properties by now is still there to consume from.
        future.add_done_callback(lambda _future: self._declare_all(specs, then))
