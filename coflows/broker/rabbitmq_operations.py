"""One-off requests to RabbitMQ, each on a channel of its own, so that one that is refused closes no other's."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pika.exceptions

from coflows.broker.rabbitmq_link import Link, settle
from coflows.broker.rabbitmq_server import RabbitServer
from coflows.errors import BrokerError

OPERATION_TIMEOUT = 30.0
Result = TypeVar("Result")
Ask = Callable[[Any, Callable[[Any], None]], None]
"""``ask(channel, done)`` sends the request and has ``done`` called with the reply."""


@dataclass(slots=True, eq=False)
class _Operation:
    queue: str
    ask: Ask
    future: Future[None] = field(default_factory=Future)


class Operations:
    """``run`` and ``wait`` are for any thread but the link's; the rest runs on the link's.

    What a lost connection interrupts is asked again after the reconnect: all requests are safe to repeat.
    """

    def __init__(self, link: Link, server: RabbitServer) -> None:
        self._link = link
        self._server = server
        self._pending: set[_Operation] = set()
        self._closed = False

    def run(self, queue: str, ask: Ask) -> None:
        """Ask and wait for the reply. Raises what the server's refusal means, or BrokerUnavailableError."""
        self.wait(self.start(queue, ask))

    def start(self, queue: str, ask: Ask) -> Future[None]:
        """Ask; from any thread."""
        operation = _Operation(queue, ask)
        self._link.call_soon(lambda: self._begin(operation))
        return operation.future

    def wait(self, future: Future[Result]) -> Result:
        """The outcome of something asked for. Raises BrokerUnavailableError when it does not come in time."""
        if self._link.on_io_thread():
            raise BrokerError(
                "A consumer's callback asked the broker something that it would have to wait for.",
                hint="Only publish_async and the settling of deliveries are allowed there; use a thread.",
            )
        try:
            return future.result(OPERATION_TIMEOUT)
        except TimeoutError:
            future.cancel()
            raise self._server.silent(OPERATION_TIMEOUT, self._link.problem) from None

    def resume(self) -> None:
        """Ask again what was interrupted."""
        for operation in list(self._pending):
            self._begin(operation)

    def close(self) -> None:
        """Fail what is pending."""
        self._closed = True
        # Who waits for one may ask for the next as soon as it is told.
        pending, self._pending = self._pending, set()
        for operation in pending:
            settle(operation.future, self._server.closed())

    def _begin(self, operation: _Operation) -> None:
        if operation.future.done():
            self._pending.discard(operation)
            return
        if self._closed:
            settle(operation.future, self._server.closed())
            return
        self._pending.add(operation)
        connection = self._link.connection
        if connection is None:
            return

        def opened(channel: Any) -> None:
            try:
                operation.ask(channel, lambda _reply: done(channel))
            except pika.exceptions.AMQPError as error:
                problem = BrokerError(f"Queue {operation.queue!r} cannot be asked for: {error!r}.")
                problem.__cause__ = error
                self._end(operation, problem)
                channel.close()

        def done(channel: Any) -> None:
            self._end(operation, None)
            if channel.is_open:
                channel.close()

        def closed(_channel: Any, reason: BaseException) -> None:
            if isinstance(reason, pika.exceptions.ChannelClosedByBroker):
                self._end(operation, self._server.channel_error(reason, operation.queue))

        try:
            connection.channel(on_open_callback=opened).add_on_close_callback(closed)
        except pika.exceptions.AMQPError as error:
            problem = BrokerError(f"{self._server.url} gives no more channels.", hint="Use fewer queues at a time.")
            problem.__cause__ = error
            self._end(operation, problem)

    def _end(self, operation: _Operation, outcome: BrokerError | None) -> None:
        self._pending.discard(operation)
        settle(operation.future, outcome)
