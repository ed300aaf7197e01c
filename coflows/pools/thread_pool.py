"""A pool of threads in which a task that nobody wants any more does not keep its place."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from coflows.errors import PoolClosedError
from coflows.threads import ThreadPool

_Task = tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]


class TaskThreads:
    """Runs at most ``limit`` tasks at once, in daemon threads. A thread cannot be stopped: ``cancel()`` on a running
    task's future wakes who waits for it and gives its place to the next task, while the thread goes on until its
    function returns; what that returns is dropped. Thread-safe."""

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._threads = ThreadPool(name)
        self._waiting: deque[_Task] = deque()
        self._running: set[Future[Any]] = set()
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, function: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run ``function(*args)``; raises PoolClosedError."""
        future: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise PoolClosedError("A task was submitted to threads that are closed.")
            self._waiting.append((future, function, args))
        future.add_done_callback(self._ended)
        self._fill()
        return future

    def close(self) -> None:
        """Cancel what waits and what runs. Idempotent."""
        with self._lock:
            self._closed = True
            futures = [*(future for future, _, _ in self._waiting), *self._running]
        for future in futures:
            future.cancel()

    def _ended(self, future: Future[Any]) -> None:
        if future.cancelled():
            future.set_running_or_notify_cancel()  # Wakes concurrent.futures.wait too.
        with self._lock:
            self._running.discard(future)
        self._fill()

    def _fill(self) -> None:
        while True:
            with self._lock:
                if not self._waiting or len(self._running) >= self._limit:
                    return
                task = self._waiting.popleft()
                if task[0].done():
                    continue
                self._running.add(task[0])
            self._threads.submit(lambda task=task: _run(*task))  # type: ignore[misc]


def _run(future: Future[Any], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    if future.done():
        return
    with contextlib.suppress(InvalidStateError):  # It may have been cancelled meanwhile.
        try:
            value = function(*args)
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(value)
