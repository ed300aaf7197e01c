"""A worker process of a pool: does one task at a time in its main thread, and ends when the pool does."""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import os
import queue
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from coflows.codec import code
from coflows.pools import wire
from coflows.pools.raised import dump_error


class Caller:
    """How a task talks to who submitted it, while it runs. Thread-safe."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._waits = 0
        self._lock = threading.Lock()

    def call(self, data: bytes) -> Future[bytes]:
        """Ask something of who submitted the task; the future gets the answer, when there is one."""
        return self._child.call(data)

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """What is waited for within may be another task of the same pool."""
        with self._lock:
            self._waits += 1
            if self._waits == 1:
                self._child.send("pause")
        try:
            yield
        finally:
            with self._lock:
                self._waits -= 1
                if not self._waits:
                    self._child.send("resume")


class Child:
    """The process. ``socket`` leads to the pool."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._sending = threading.Lock()
        self._tasks: queue.SimpleQueue[wire.Frame | None] = queue.SimpleQueue()
        self._calls: dict[int, Future[bytes]] = {}
        self._numbers = itertools.count()
        self._busy = False

    def run(self) -> None:
        """Do tasks until the pool is gone."""
        threading.Thread(target=self._listen, name="coflows-listen", daemon=True).start()
        self.send("ready")
        while (frame := self._tasks.get()) is not None:
            self._busy = True
            if not self._do(*frame[1:]):
                return
            self._busy = False

    def send(self, *frame: Any) -> None:
        """Say something to the pool."""
        data = wire.pack(*frame)
        with self._sending:
            self._socket.sendall(data)

    def call(self, data: bytes) -> Future[bytes]:
        """See Caller."""
        future: Future[bytes] = Future()
        number = next(self._numbers)
        self._calls[number] = future
        self.send("call", number, data)
        return future

    def _do(self, data: bytes, memory_limit: int | None, calls: bool) -> bool:
        """Whether this process may do another task."""
        before = resource.getrlimit(resource.RLIMIT_AS)
        try:
            if memory_limit is not None:
                _limit(memory_limit)
            frame = self._outcome(data, calls)
        except MemoryError as error:
            # What failed to be allocated may be missing anywhere in this process: it ends.
            resource.setrlimit(resource.RLIMIT_AS, before)
            self.send("memory", str(error))
            return False
        resource.setrlimit(resource.RLIMIT_AS, before)
        self.send(*frame)
        return True

    def _outcome(self, data: bytes, calls: bool) -> tuple[str, bytes]:
        try:
            function, args, kwargs = code.loads(data)
            del data
            value = function(Caller(self), *args, **kwargs) if calls else function(*args, **kwargs)
            return "done", code.dumps(value)
        except MemoryError:
            raise
        except BaseException as error:
            return "raised", dump_error(error)

    def _listen(self) -> None:
        frames = wire.unpacker()
        try:
            while chunk := self._socket.recv(wire.CHUNK):
                frames.feed(chunk)
                for frame in frames:
                    if frame[0] == "task":
                        self._tasks.put(frame)
                    else:
                        self._calls.pop(frame[1]).set_result(frame[2])
        except MemoryError:
            os._exit(wire.MEMORY_EXIT)
        except OSError:
            pass  # The pool is gone.
        if self._busy:
            os._exit(1)  # Nobody wants what it does any more.
        self._tasks.put(None)


def _limit(memory: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (memory if hard == resource.RLIM_INFINITY else min(memory, hard), hard))


def main(descriptor: int) -> None:
    """What the process runs; ``descriptor`` is the socket to the pool."""
    faulthandler.enable()
    with contextlib.suppress(ConnectionError):  # The pool is gone.
        Child(socket.socket(fileno=descriptor)).run()
