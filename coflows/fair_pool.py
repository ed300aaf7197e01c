"""A pool of threads that many senders share: each has its turn, however much one of them asks for."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable

from coflows.threads import ThreadPool

logger = logging.getLogger(__name__)

Task = Callable[[], None]


class FairPool:
    """Runs at most ``limit`` tasks at once, those of one sender in the order of ``submit``. Thread-safe."""

    def __init__(self, name: str, limit: int) -> None:
        self._threads = ThreadPool(name)
        self._name = name
        self._free = limit
        self._waiting: OrderedDict[str, deque[Task]] = OrderedDict()
        self._lock = threading.Lock()

    def submit(self, sender: str, task: Task) -> None:
        """Run ``task`` when it is its turn; what it raises is logged. Never blocks."""
        with self._lock:
            self._waiting.setdefault(sender, deque()).append(task)
            if not self._free:
                return
            self._free -= 1
        self._threads.submit(self._work)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            try:
                task()
            except Exception:
                logger.exception("A task of %s failed.", self._name)

    def _next(self) -> Task | None:
        with self._lock:
            if not self._waiting:
                self._free += 1
                return None
            sender, tasks = self._waiting.popitem(last=False)
            task = tasks.popleft()
            if tasks:
                self._waiting[sender] = tasks
            return task
