"""Publishing with an account on RabbitMQ: to each user through his own exchange, once it is known to be there."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any

from coflows.broker.rabbitmq_link import Link, settle
from coflows.broker.rabbitmq_operations import Operations
from coflows.broker.rabbitmq_publisher import Publisher
from coflows.broker.rabbitmq_server import RabbitServer
from coflows.broker.topology import door_exchange, owner_of
from coflows.errors import UnroutableError

MOST = 10_000
"""Exchanges that are remembered; then it is looked for them again."""
Waiting = tuple[str, bytes, "Future[None]"]


class Doors:
    """``publish`` is for any thread. A message to an exchange that is not there would cost all that are under way their
    channel, and anybody could have a flow of ours ask for a user who does not exist; so the first one waits for a look.
    """

    def __init__(
        self, link: Link, server: RabbitServer, operations: Operations, publisher: Publisher, deadline: float
    ) -> None:
        self._link = link
        self._server = server
        self._operations = operations
        self._publisher = publisher
        self._deadline = deadline
        self._there: set[str] = set()
        self._waiting: dict[str, list[Waiting]] = {}
        """By exchange, what was published while it is looked for."""
        self._lock = threading.Lock()
        publisher.on_missing = self._forget

    def publish(self, queue: str, body: bytes) -> Future[None]:
        """See Broker.publish_async."""
        owner = owner_of(queue)
        exchange = "" if owner is None else door_exchange(owner)
        if exchange in self._there:
            return self._publisher.publish(queue, body, exchange=exchange)
        future: Future[None] = Future()
        if owner is None:
            settle(future, self._server.unroutable(queue))
            return future
        with self._lock:
            if exchange in self._there:
                return self._publisher.publish(queue, body, exchange=exchange)
            self._waiting.setdefault(exchange, []).append((queue, body, future))
            if len(self._waiting[exchange]) > 1:
                return future
        self._look(exchange)
        return future

    def _look(self, exchange: str) -> None:
        def look(channel: Any, done: Callable[[Any], None]) -> None:
            channel.exchange_declare(exchange, passive=True, callback=done)

        def late() -> None:
            settle(looked, self._server.silent(self._deadline, self._link.problem))

        looked = self._operations.start(exchange, look)
        looked.add_done_callback(lambda _future: self._looked(exchange, looked.exception()))
        self._link.call_soon(lambda: self._link.call_later(self._deadline, late))

    def _looked(self, exchange: str, problem: BaseException | None) -> None:
        """Send what waited before anything that comes now, so that its order is kept."""
        with self._lock:
            waiting = self._waiting.pop(exchange)
            if problem is None:
                if len(self._there) >= MOST:
                    self._there.clear()
                for queue, body, future in waiting:
                    sent = self._publisher.publish(queue, body, exchange=exchange)
                    sent.add_done_callback(partial(_pass_on, future))
                self._there.add(exchange)
                return
        for queue, _, future in waiting:
            settle(future, self._server.unroutable(queue) if isinstance(problem, UnroutableError) else problem)

    def _forget(self, exchange: str) -> None:
        self._there.discard(exchange)


def _pass_on(future: Future[None], sent: Future[None]) -> None:
    settle(future, sent.exception())
