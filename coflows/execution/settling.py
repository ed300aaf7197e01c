"""Waiting on an event loop for a future of threads, without tying one to the other."""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import Future
from typing import Any


async def settled(future: Future[Any], timeout: float | None = None) -> bool:
    """Whether the future is done, at the latest after ``timeout`` seconds. Neither a timeout nor a cancelled waiter
    changes anything for the future, and its outcome is not looked at."""
    if future.done():
        return True
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def wake(_future: Future[Any]) -> None:
        with contextlib.suppress(RuntimeError):  # The waiter is gone, and its loop with it.
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(wake)
    try:
        await asyncio.wait_for(done.wait(), timeout)
    except TimeoutError:
        return future.done()
    return True
