"""A connection to RabbitMQ that is made again whenever it is lost, and the thread that does all its I/O."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

import pika.exceptions
from pika.adapters.select_connection import IOLoop, SelectConnection

from coflows.broker.rabbitmq_server import RabbitServer
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
    """All I/O, all callbacks and all handed-in work run on its one thread; ``call_soon`` is the way in from others.

    ``on_open`` and ``on_lost`` are called on that thread, after each connect and after each loss.
    """

    def __init__(self, name: str, server: RabbitServer) -> None:
        self.on_open: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.problem: BrokerError | None = None
        """Why there is no connection now."""
        self._server = server
        self._loop = IOLoop()
        self._connection: SelectConnection | None = None
        self._first: Future[None] = Future()
        self._attempt = 0
        self._work: deque[Callable[[], None]] = deque()
        self._waking = False
        self._lock = threading.Lock()
        self._closing = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"coflows-{name}", daemon=True)

    @property
    def connection(self) -> Any | None:
        """The open connection, if there is one; for the I/O thread."""
        connection = self._connection
        return connection if connection is not None and connection.is_open else None

    def start(self) -> None:
        """Begin to connect, for ever."""
        self._thread.start()

    def wait_open(self, deadline: float) -> None:
        """Wait for the first connection until ``deadline`` (monotonic). Raises BrokerAuthError as soon as the account
        is refused, BrokerUnavailableError at the deadline."""
        try:
            self._first.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            raise self.problem or self._server.connection_error(TimeoutError("no answer")) from None

    def on_io_thread(self) -> bool:
        """Whether the caller is the I/O thread."""
        return threading.current_thread() is self._thread

    def call_soon(self, work: Callable[[], None]) -> None:
        """Do ``work`` on the I/O thread, in the order of the calls; from any thread. One wake-up serves all the work
        that gathers until the thread gets to it. After ``close`` the work is done here and now."""
        with self._lock:
            if not self._ended:
                self._work.append(work)
                if not self._waking:
                    self._waking = True
                    self._loop.add_callback_threadsafe(self._drain)
                return
        self._guarded(work)

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` later; for the I/O thread."""
        self._loop.call_later(seconds, lambda: self._guarded(work))

    def close(self) -> None:
        """Close the connection and end the thread. Idempotent."""
        self.call_soon(self._stop)
        if self._thread.ident is not None and not self.on_io_thread():
            self._thread.join(2 * CLOSE_PATIENCE)

    # -- on the I/O thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._loop.call_later(0, self._connect)
        while not self._ended:
            try:
                self._loop.start()
            except Exception:
                logger.exception("The connection to %s broke; connecting again.", self._server.url)
                self._start_over()
                continue
            with self._lock:
                self._ended = True
        self._drain()
        self._loop.close()

    def _start_over(self) -> None:
        if self._connection is not None and not self._connection.is_closed:
            with contextlib.suppress(Exception):
                self._connection.close()  # It is made again when that is done.
                return
        self._connection = None
        self._loop.call_later(MAX_BACKOFF, self._connect)

    def _stop(self) -> None:
        if self._closing:
            return
        self._closing = True
        settle(self._first, self._server.closed())
        connection = self._connection
        if connection is None or connection.is_closed:
            self._loop.stop()
            return
        self._loop.call_later(CLOSE_PATIENCE, self._loop.stop)
        transport = getattr(connection, "_transport", None)
        if not connection.is_open and transport is not None:
            # In the middle of the greeting pika's own close would wait for its end; this makes it end.
            with contextlib.suppress(OSError):
                transport._sock.shutdown(socket.SHUT_RDWR)
        elif not connection.is_closing:
            connection.close()

    def _drain(self) -> None:
        # One batch at a time: with a fast producer the loop must get to its sockets in between.
        with self._lock:
            work, self._work = self._work, deque()
            self._waking = False
        for one in work:
            self._guarded(one)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except pika.exceptions.AMQPError as error:
            logger.debug("Work for %s met a channel that went: %r", self._server.url, error)
        except Exception:
            logger.exception("Work for %s failed.", self._server.url)

    def _connect(self) -> None:
        if self._closing:
            return
        self._connection = SelectConnection(
            self._server.parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._failed,
            on_close_callback=self._lost,
            custom_ioloop=self._loop,
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
        self._guarded(self.on_open)
        settle(self._first, None)

    def _lost(self, connection: Any, error: BaseException) -> None:
        if not self._closing:
            logger.warning("The connection to %s was lost (%s); connecting again.", self._server.url, error)
        self._guarded(self.on_lost)
        self._failed(connection, error)

    def _failed(self, _connection: Any, error: BaseException) -> None:
        self._connection = None
        self.problem = self._server.connection_error(error)
        if isinstance(self.problem, BrokerAuthError) and not settle(self._first, self.problem):
            logger.warning("%s", self.problem)
        if self._closing:
            self._loop.stop()
            return
        limit = min(MAX_BACKOFF, FIRST_BACKOFF * 2**self._attempt)
        self._attempt += 1
        self._loop.call_later(limit * random.uniform(0.5, 1.0), self._connect)
