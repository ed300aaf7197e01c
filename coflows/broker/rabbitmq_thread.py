"""The thread that does all I/O of a broker object: one loop for its connections, which need not wake each other."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

import pika.exceptions
from pika.adapters.select_connection import IOLoop

logger = logging.getLogger(__name__)


class IoThread:
    """``call_soon`` is the way in from other threads. ``on_broken`` is called on the thread when the loop itself broke;
    the loop goes on."""

    def __init__(self, name: str, on_broken: Callable[[], None]) -> None:
        self.loop = IOLoop()
        self._on_broken = on_broken
        self._work: deque[Callable[[], None]] = deque()
        self._waking = False
        self._lock = threading.Lock()
        self._stopping = False
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def on_it(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def call_soon(self, work: Callable[[], None]) -> None:
        """Do ``work`` on this thread, in the order of the calls; from any thread. One wake-up serves all the work that
        gathers until the thread gets to it. Once the thread has ended the work is done here and now."""
        with self._lock:
            if not self._ended:
                self._work.append(work)
                if not self._waking:
                    self._waking = True
                    if self.on_it():
                        self.loop.call_later(0, self._drain)  # No need to wake whoever is awake.
                    else:
                        self.loop.add_callback_threadsafe(self._drain)
                return
        self.guarded(work)

    def call_later(self, seconds: float, work: Callable[[], None]) -> None:
        """Do ``work`` later; for this thread."""
        self.loop.call_later(seconds, lambda: self.guarded(work))

    def stop(self) -> None:
        """End the loop; for this thread."""
        self._stopping = True
        self.loop.stop()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended; for other threads."""
        if self._thread.ident is not None and not self.on_it():
            self._thread.join(timeout)

    def guarded(self, work: Callable[[], None]) -> None:
        """Do ``work``; what it raises is logged."""
        try:
            work()
        except pika.exceptions.AMQPError as error:
            logger.debug("Work met a channel that went: %r", error)
        except Exception:
            logger.exception("Work for RabbitMQ failed.")

    def _run(self) -> None:
        while not self._stopping:
            try:
                self.loop.start()
            except Exception:
                logger.exception("The loop of RabbitMQ's connections broke; connecting again.")
                self.guarded(self._on_broken)
        with self._lock:
            self._ended = True
        self._drain()
        self.loop.close()

    def _drain(self) -> None:
        # One batch at a time: with a fast producer the loop must get to its sockets in between.
        with self._lock:
            work, self._work = self._work, deque()
            self._waking = False
        for one in work:
            self.guarded(one)
