"""Writes the finished turns of a batch when a later turn of it takes its time, so that their replies do not wait."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)

DELAY = 0.005
"""Seconds."""


class Flusher:
    """Calls ``flush`` a moment after ``watch``, from a thread of its own, unless ``forget`` came first. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._due: deque[tuple[float, Callable[[], None]]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False

    def watch(self, flush: Callable[[], None]) -> None:
        """Call ``flush`` in a moment."""
        with self._changed:
            self._due.append((time.monotonic() + DELAY, flush))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            elif len(self._due) == 1:
                self._changed.notify()

    def close(self) -> None:
        """Stop. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._due or self._closed)
                if self._closed:
                    return
                due, flush = self._due.popleft()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                flush()
            except Exception:
                logger.exception("What is finished could not be written while a turn takes its time.")
