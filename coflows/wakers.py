"""Wakes coroutines that wait for replies: those whose replies come together share one wake-up of their event loop."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Wakers:
    """Thread-safe. Waking a loop from another thread costs a system call; most replies of an envelope need none."""

    def __init__(self) -> None:
        self._gathered: dict[asyncio.AbstractEventLoop, list[asyncio.Future[None]]] = {}
        self._lock = threading.Lock()

    def wake(self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[None]) -> None:
        """Resolve ``waiter`` on its loop soon; nothing happens when the loop is closed."""
        with self._lock:
            gathered = self._gathered.setdefault(loop, [])
            gathered.append(waiter)
            if len(gathered) > 1:
                return
        try:
            loop.call_soon_threadsafe(self._resolve, loop)
        except RuntimeError:  # The loop was closed: nobody waits any more.
            with self._lock:
                self._gathered.pop(loop, None)

    def _resolve(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            gathered = self._gathered.pop(loop, [])
        for waiter in gathered:
            if not waiter.done():
                waiter.set_result(None)
