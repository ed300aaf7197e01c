"""The event loop that coroutines of flows run on, in a thread of its own; it tells of all that end together."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from coflows.dispatch.work import Work

logger = logging.getLogger(__name__)


class Coroutine:
    """One coroutine on its way, as ``work``. ``then`` gets it when it has ended, and the work that it is part of then;
    ``task`` has its outcome."""

    __slots__ = ("_cancelled", "_ended_by", "awaitable", "task", "then", "work")

    def __init__(self, work: Work, awaitable: Awaitable[Any], then: Callable[[Coroutine, Work], None]) -> None:
        self.work = work
        self.awaitable = awaitable
        self.then = then
        self.task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._ended_by: BaseException | None = None

    def cancel(self) -> None:
        """End it at its next ``await``; for the loop's thread."""
        self._cancelled = True
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> Any:
        """Await it, unless it was cancelled before."""
        if self._cancelled:
            raise asyncio.CancelledError
        try:
            return await self.awaitable
        except (SystemExit, KeyboardInterrupt) as error:
            self._ended_by = error  # A task would end the whole loop with it.
            return None

    def result(self) -> Any:
        """What it gave; raises what it raised, or asyncio.CancelledError. Only once it has ended."""
        assert self.task is not None
        if self._ended_by is not None:
            raise self._ended_by
        return self.task.result()


class EventLoop:
    """``run`` is for any thread. ``on_ended`` is called on the loop's thread, with all that ended since the last time:
    it must not block."""

    def __init__(self, name: str, on_ended: Callable[[Sequence[Coroutine]], None]) -> None:
        self._on_ended = on_ended
        self._loop = asyncio.new_event_loop()
        self._starting: list[Coroutine] = []
        self._ended: list[Coroutine] = []
        self._lock = threading.Lock()
        self._closed = False
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def run(self, coroutine: Coroutine) -> None:
        """Start it soon; one wake-up serves all that are started at the same time."""
        with self._lock:
            self._starting.append(coroutine)
            if len(self._starting) > 1:
                return
        self._call(self._start)

    def cancel(self, coroutine: Coroutine) -> None:
        """End a coroutine at its next ``await``."""
        self._call(coroutine.cancel)

    def close(self) -> None:
        """Stop. Idempotent."""
        self._closed = True
        self._call(self._loop.stop)

    def _call(self, work: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # It was closed; what it has not begun, another worker does.
            self._loop.call_soon_threadsafe(work)

    # -- on the loop's thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            try:
                self._loop.run_forever()
            except (SystemExit, KeyboardInterrupt):
                logger.warning("A task that a flow had made wanted to end the process; it is only ended itself.")
        self._loop.close()

    def _start(self) -> None:
        with self._lock:
            starting, self._starting = self._starting, []
        for coroutine in starting:
            coroutine.task = self._loop.create_task(coroutine.run())
            coroutine.task.add_done_callback(partial(self._end, coroutine))

    def _end(self, coroutine: Coroutine, _task: asyncio.Task[Any]) -> None:
        self._ended.append(coroutine)
        if len(self._ended) == 1:
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        ended, self._ended = self._ended, []
        self._on_ended(ended)
