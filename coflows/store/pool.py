"""A few connections that many threads share, the most recently used first."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

C = TypeVar("C")


class Pool(Generic[C]):
    """At most ``size`` open connections, opened when needed. Thread-safe."""

    def __init__(self, open_connection: Callable[[], C], close_connection: Callable[[C], None], size: int) -> None:
        self._open = open_connection
        self._close = close_connection
        self._size = size
        self._idle: deque[C] = deque()
        self._permits = threading.Semaphore(size)

    def take(self) -> C:
        """A connection for the caller alone, until it is given back or dropped; waits while all are taken."""
        self._permits.acquire()
        try:
            return self._idle.pop()
        except IndexError:
            pass
        try:
            return self._open()
        except BaseException:
            self._permits.release()
            raise

    def give_back(self, connection: C) -> None:
        """Return what ``take`` gave."""
        self._idle.append(connection)
        self._permits.release()

    def drop(self, connection: C) -> None:
        """Close what ``take`` gave, because it is broken."""
        self._close(connection)
        self._permits.release()

    def close(self) -> None:
        """Close all, after those that are taken have come back. What the owner opens afterwards it must refuse."""
        for _ in range(self._size):
            self._permits.acquire()
        while self._idle:
            self._close(self._idle.pop())
        for _ in range(self._size):
            self._permits.release()
