"""An event loop in a thread of its own, for async steps."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class LeftError(Exception):
    """A coroutine raised ``error``, a SystemExit or KeyboardInterrupt."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(repr(error))
        self.error = error


class LoopThread:
    """Starts with the first ``submit``. Thread-safe."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Await ``function(*arguments)`` there. Cancelling the future cancels it at its next ``await``. A SystemExit or
        KeyboardInterrupt of it arrives as LeftError."""

        async def run() -> Any:
            try:
                return await function(*arguments)
            except (SystemExit, KeyboardInterrupt) as error:
                # A task that ended in these would end its event loop too, and with it all other steps.
                raise LeftError(error) from error

        with self._lock:
            if self._closed:
                raise RuntimeError(f"{self._name} is closed.")
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name=self._name, daemon=True).start()
            return asyncio.run_coroutine_threadsafe(run(), self._loop)

    def close(self) -> None:
        """Cancel what runs and end the thread, without waiting for it. Idempotent."""
        with self._lock:
            self._closed = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._loop = None

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()
