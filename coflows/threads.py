"""A pool of daemon threads that grows with its work: turns that wait for other turns must not use it up."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

IDLE_SECONDS = 30.0


class ThreadPool:
    """Runs each task at once, in an idle thread or a new one. Bounded by who submits (admission). Its threads are
    daemons, so a turn that never ends does not keep the interpreter from ending. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._idle = 0
        self._lock = threading.Lock()

    def submit(self, task: Callable[[], None]) -> None:
        """Run ``task``; what it raises is logged."""
        with self._lock:
            if self._idle:
                self._idle -= 1
                self._tasks.put(task)
                return
        threading.Thread(target=self._work, args=(task,), name=self._name, daemon=True).start()

    def _work(self, task: Callable[[], None]) -> None:
        while True:
            try:
                task()
            except Exception:
                logger.exception("A task of %s failed.", self._name)
            with self._lock:
                self._idle += 1
            try:
                task = self._tasks.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                with self._lock:
                    # A submit that counted on this thread has already taken it off the idle ones.
                    if self._idle:
                        self._idle -= 1
                        return
                task = self._tasks.get()
