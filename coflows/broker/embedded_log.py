"""Puts on disk what the embedded broker has committed, and then tells those who wait for it."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from pathlib import Path

from coflows.errors import BrokerError, CoflowsError

logger = logging.getLogger(__name__)

Confirm = tuple["Future[None]", CoflowsError | None]
"""Somebody who waits, and the error that he is to be told instead."""


class WriteAheadLog:
    """SQLite's log beside the broker's file. Commits with ``synchronous=NORMAL`` append to it; one ``fdatasync`` after
    them makes all of them as durable as ``FULL`` would have made each, while the next ones go on and readers have them
    already. What has left the log was put on disk by the checkpoint.

    Thread-safe. Futures are resolved in the order of ``confirm``, by a thread of its own, inside of ``around``.
    """

    def __init__(self, path: Path, around: Callable[[], AbstractContextManager[None]]) -> None:
        # It cannot be replaced while this process has a connection to the file.
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._path = path
        self._around = around
        self._failed = False
        self._waiting: queue.SimpleQueue[Confirm | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="coflows-embedded-log", daemon=True)
        self._thread.start()

    def confirm(self, future: Future[None], error: CoflowsError | None = None) -> None:
        """Resolve ``future`` when all that was committed until now is on disk."""
        self._waiting.put((future, error))

    @property
    def backlog(self) -> int:
        """How many wait whose ``around`` has not begun."""
        return self._waiting.qsize()

    def sync(self) -> None:
        """All that was committed until now is on disk; raises BrokerError."""
        try:
            if not self._failed:
                os.fdatasync(self._file)
                return
        except OSError as error:
            # The system may take the next try for a success, though this one's data is lost.
            self._failed = True
            logger.error("%s cannot be written to disk: %s", self._path, error)
        raise BrokerError(f"{self._path} could not be written to disk.", hint="Check the disk, then start again.")

    def close(self) -> None:
        """Resolve what waits, then stop."""
        self._waiting.put(None)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        os.close(self._file)

    def _run(self) -> None:
        while True:
            batch = [self._waiting.get()]
            try:
                while True:
                    batch.append(self._waiting.get_nowait())
            except queue.Empty:
                pass
            problem: CoflowsError | None = None
            try:
                self.sync()
            except BrokerError as failed:
                problem = failed
            with self._around():
                for one in batch:
                    if one is None:
                        return
                    future, error = one
                    if error is None and problem is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error or problem)
