"""The calling process of a world: ``python -m benchmarks.calls ADDRESSES``.

One call at a time is ``ask``. Many in flight are kept up in one of three ways, as the target says: ``hot:callbacks``
(one thread and ``submit``; each reply's callback makes the next call), ``hot:await`` (one asyncio program of many tasks
and ``ask_async``) or ``hot:threads`` (16 threads with ``get_reply_future``, which returns when the message is durable).
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.answering import answer
from benchmarks.contest import Contestant
from benchmarks.world import World
from coflows import FlowFuture, connect
from coflows.model.address import InstanceAddress
from coflows.proxy import FlowProxy

THREADS = 16
STYLE = "callbacks"
KINDS = {"stateless": "stateless", "many": "stateful, 1,000 instances", "hot": "stateful, one instance"}


def contestants(name: str, world: World, styles: tuple[str, ...] = (STYLE,)) -> list[Contestant]:
    """What is measured of a world."""
    return [
        Contestant(
            f"{name}: {kind}" + (f" ({style})" if style != STYLE else ""),
            world.client,
            world.roles,
            f"{target}:{style}",
        )
        for target, kind in KINDS.items()
        for style in styles
    ]


def payload(number: int) -> dict[str, Any]:
    """About 100 bytes."""
    return {"number": number, "text": "x" * 60}


class Caller:
    """Calls the instances of one target in turn."""

    def __init__(self, flows: list[FlowProxy]) -> None:
        self._next = itertools.cycle(flows)

    def one_by_one(self, count: int) -> list[float]:
        """Seconds of each call."""
        latencies = []
        for number in range(count):
            flow = next(self._next)
            begin = time.perf_counter()
            flow.ask(payload(number), timeout=60)
            latencies.append(time.perf_counter() - begin)
        return latencies

    def callbacks(self, count: int, window: int) -> list[float]:
        """Each reply makes room for the next call."""
        latencies: list[float] = []
        numbers = itertools.count()
        finished = threading.Event()

        def call() -> None:
            number = next(numbers)
            if number < count:
                begin = time.perf_counter()
                next(self._next).submit(payload(number)).add_done_callback(lambda future: ended(future, begin))

        def ended(future: FlowFuture, begin: float) -> None:
            latencies.append(time.perf_counter() - begin)
            future.try_get_data()
            call()
            if len(latencies) == count:
                finished.set()

        for _ in range(window):
            call()
        finished.wait()
        return latencies

    def awaited(self, count: int, window: int) -> list[float]:
        """As an asyncio program would: as many tasks as calls in flight."""
        latencies: list[float] = []
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                begin = time.perf_counter()
                await next(self._next).ask_async(payload(number))
                latencies.append(time.perf_counter() - begin)

        async def run() -> None:
            await asyncio.gather(*(work() for _ in range(window)))

        asyncio.run(run())
        return latencies

    def threads(self, count: int, window: int) -> list[float]:
        """Each message durable before the next of its thread is sent."""
        latencies: list[float] = []
        free, answered = threading.Semaphore(window), threading.Semaphore(0)

        def work(numbers: range) -> None:
            for number in numbers:
                free.acquire()
                flow = next(self._next)
                begin = time.perf_counter()
                future = flow.get_reply_future(flow.package_input_message(payload(number)))
                future.add_done_callback(lambda future, begin=begin: ended(future, begin))

        def ended(future: FlowFuture, begin: float) -> None:
            latencies.append(time.perf_counter() - begin)
            future.try_get_data()
            free.release()
            answered.release()

        threads = [threading.Thread(target=work, args=(range(start, count, THREADS),)) for start in range(THREADS)]
        for thread in threads:
            thread.start()
        for _ in range(count):
            answered.acquire()
        for thread in threads:
            thread.join()
        return latencies


def main(places: Path) -> None:
    """Answer what is asked on standard input."""
    with ExitStack() as exit_stack:
        cl = exit_stack.enter_context(connect("caller"))
        callers = {
            target: Caller([cl.proxy(InstanceAddress.from_dict(one)) for one in those])
            for target, those in json.loads(places.read_text()).items()
        }

        def measure(target: str, count: int, window: int) -> tuple[list[float], float]:
            kind, _, style = target.partition(":")
            caller = callers[kind]
            ways: dict[str, Callable[[int, int], list[float]]] = {
                "callbacks": caller.callbacks,
                "await": caller.awaited,
                "threads": caller.threads,
            }
            begin = time.perf_counter()
            latencies = caller.one_by_one(count) if window == 1 else ways[style](count, window)
            return latencies, time.perf_counter() - begin

        answer(measure)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
