"""The threads that turns run on: one while turns are quick, more as soon as one takes its time.

Threads that are all busy at once only get into each other's way in one interpreter; so a task that waits is taken up by
a thread that ends another, and only when none has got any further for a moment (``beat``) by another thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from coflows.threads import ThreadPool

logger = logging.getLogger(__name__)

MOMENT = 0.003
"""Seconds without a beat after which another thread joins while a task waits."""
Task = Callable[[], None]


class Crew:
    """Runs each task once, in about the order of ``submit``. Bounded by who submits (admission). Thread-safe."""

    def __init__(self, name: str) -> None:
        self._threads = ThreadPool(name)
        self._name = name
        self._tasks: deque[tuple[float, Task]] = deque()
        self._working = 0
        self._lock = threading.Lock()
        self._waits = threading.Event()
        self._clock: threading.Thread | None = None
        self._closed = False
        self._beats = 0

    def beat(self) -> None:
        """A task has got further: what is done is quick."""
        self._beats += 1

    def submit(self, task: Task, *, first: bool = False, next: bool = False) -> None:
        """Run ``task`` soon; ``first``: before those that wait. ``next``: the calling task is about to end, and if no
        other waits its thread takes this one up without anybody being told."""
        with self._lock:
            if first:
                self._tasks.appendleft((time.monotonic(), task))
            else:
                self._tasks.append((time.monotonic(), task))
            if self._working:
                if len(self._tasks) > 1 or not next:
                    self._watch()
                return
            self._working += 1
        self._threads.submit(self._work)

    def step_aside(self) -> None:
        """The calling task is going to wait: another thread does what there is to do. Call ``step_in`` after it."""
        with self._lock:
            self._working -= 1
            if self._working or not self._tasks:
                return
            self._working += 1
        self._threads.submit(self._work)

    def step_in(self) -> None:
        """The calling task goes on."""
        with self._lock:
            self._working += 1

    def close(self) -> None:
        """No thread joins any more. Idempotent."""
        self._closed = True
        self._waits.set()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._working -= 1
                    return
                task = self._tasks.popleft()[1]
            try:
                task()
            except Exception:
                logger.exception("A task of %s failed.", self._name)

    def _watch(self) -> None:
        if not self._waits.is_set():
            self._waits.set()
            if self._clock is None:
                self._clock = threading.Thread(target=self._look, name=f"{self._name}-clock", daemon=True)
                self._clock.start()

    def _look(self) -> None:
        while True:
            self._waits.wait()
            if self._closed:
                return
            beats = self._beats
            time.sleep(MOMENT)
            with self._lock:
                if not self._tasks:
                    self._waits.clear()
                    continue
                if time.monotonic() - self._tasks[0][0] < MOMENT or self._beats != beats:
                    continue
                self._working += 1
            self._threads.submit(self._work)
