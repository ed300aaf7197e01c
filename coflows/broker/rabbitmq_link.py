"""A connection to RabbitMQ that is made again whenever it is lost."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from coflows.broker.rabbitmq_frames import ReadingConnection
from coflows.broker.rabbitmq_server import RabbitServer
from coflows.broker.rabbitmq_thread import IoThread
from coflows.errors import BrokerAuthError, BrokerError

logger = logging.getLogger(__name__)

FIRST_BACKOFF = 0.05
MAX_BACKOFF = 5.0
CLOSE_PATIENCE = 5.0
"""Seconds that a server gets to say goodbye."""


def settle(future: Future[Any], outcome: Any) -> bool:
    """Resolve ``future`` unless somebody else did or its waiter left; whether it took the outcome."""
    try:
        if isinstance(outcome, BaseException):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
    except InvalidStateError:
        return False
    return True


class Link:
    """All callbacks and all handed-in work run on the I/O thread; ``call_soon`` is the way in from others.

    ``on_open`` and ``on_lost`` are called on that thread, after each connect and after each loss.
    """

    def __init__(self, server: RabbitServer, thread: IoThread) -> None:
        self.on_open: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.problem: BrokerError | None = None
        """Why there is no connection now."""
        self.call_soon = thread.call_soon
        self.call_later = thread.call_later
        self.on_io_thread = thread.on_it
        self._server = server
        self._thread = thread
        self._connection: ReadingConnection | None = None
        self._first: Future[None] = Future()
        self._attempt = 0
        self._closing = False
        self._closed: Callable[[], None] = lambda: None

    @property
    def connection(self) -> Any | None:
        """The open connection, if there is one; for the I/O thread."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    def start(self) -> None:
        """Begin to connect, for ever."""
        self.call_soon(self._connect)

    def wait_open(self, deadline: float) -> None:
        """Wait for the first connection until ``deadline`` (monotonic). Raises BrokerAuthError as soon as the account
        is refused, BrokerUnavailableError at the deadline."""
        try:
            self._first.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise self.problem or self._server.connection_error(TimeoutError("no answer")) from None

    def close(self, closed: Callable[[], None]) -> None:
        """Close the connection, and call ``closed`` on the I/O thread when that is done or has taken too long."""
        self.call_soon(lambda: self._stop(closed))

    def start_over(self) -> None:
        """The loop broke, and who knows in which state it left the connection; for the I/O thread."""
        if self._connection is not None and not self._connection.is_closed:
            with contextlib.suppress(Exception):
                self._connection.close()  # It is made again when that is done.
                return
        self._connection = None
        self.call_later(MAX_BACKOFF, self._connect)

    # -- on the I/O thread -------------------------------------------------------------------------------------

    def _stop(self, closed: Callable[[], None]) -> None:
        if self._closing:
            return
        self._closing = True
        self._closed = closed
        settle(self._first, self._server.closed())
        connection = self._connection
        if connection is None or connection.is_closed:
            self._end()
            return
        self.call_later(CLOSE_PATIENCE, self._end)
        transport = getattr(connection, "_transport", None)
        if not connection.is_open and transport is not None:
            # In the middle of the greeting pika's own close would wait for its end; this makes it end.
            with contextlib.suppress(OSError):
                transport._sock.shutdown(socket.SHUT_RDWR)
        elif not connection.is_closing:
            connection.close()

    def _end(self) -> None:
        closed, self._closed = self._closed, lambda: None
        closed()

    def _connect(self) -> None:
        if self._closing:
            return
        self._connection = ReadingConnection(
            self._server.parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._lost,
            custom_ioloop=self._thread.loop,
        )

    def _opened(self, connection: Any) -> None:
        if self._closing:
            connection.close()
            return
        if self._attempt:
            logger.info("Connected to %s again.", self._server.url)
        self._attempt = 0
        self.problem = None
        connection.add_on_connection_blocked_callback(
            lambda _connection, frame: logger.warning(
                "%s takes no messages for now: %s", self._server.url, frame.method.reason
            )
        )
        self._thread.guarded(self.on_open)
        settle(self._first, None)

    def _lost(self, connection: Any, error: BaseException) -> None:
        if not self._closing:
            logger.warning("The connection to %s was lost (%s); connecting again.", self._server.url, error)
        self._thread.guarded(self.on_lost)
        self._failed(connection, error)

    def _failed(self, _connection: Any, error: BaseException) -> None:
        self._connection = None
        self.problem = self._server.connection_error(error)
        if isinstance(self.problem, BrokerAuthError) and not settle(self._first, self.problem):
            logger.warning("%s", self.problem)
        if self._closing:
            self._end()
            return
        limit = min(MAX_BACKOFF, FIRST_BACKOFF * 2**self._attempt)
        self._attempt += 1
        self.call_later(limit * random.uniform(0.5, 1.0), self._connect)
