"""What it costs to have much: a million instances in the store, a hundred thousand messages that wait, ten thousand
instances in a worker's memory, ten thousand turns that wait at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks.contest import Contestant, compare
from benchmarks.processes import await_quiet, resident_megabytes
from benchmarks.report import Burden, Figure
from benchmarks.world import World, clone, world

SENDERS = 64


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is much."""

    mounted: int = 1_000_000
    waiting: int = 100_000
    behind: int = 10_000
    """Messages behind a turn that takes long. A worker holds them, and above 20,000 nothing else of their partition."""
    touched: int = 10_000
    turns: int = 10_000
    sleep: float = 5.0

    def part(self, part: float) -> Sizes:
        """That part of it all."""
        numbers = (self.mounted, self.waiting, self.behind, self.touched, self.turns)
        return Sizes(*(max(100, int(number * part)) for number in numbers), self.sleep)


QUICK = Sizes(2000, 500, 100, 100, 100, 0.1)


def stateful(name: str, within: World, part: float) -> Contestant:
    """The contestant whose figures must not change."""
    return Contestant(name, within.client, within.roles, "many:callbacks").part(part)


def burdened(broker_url: str, sizes: Sizes, rounds: int, part: float) -> Iterator[Burden]:
    """Compare a world that has much with one that has little: first mounted instances, then messages that wait for a
    worker that is not there, then messages that wait behind a turn that takes long; with that ``part`` of the calls."""

    def measured(what: str) -> Burden:
        await_quiet([much.worker.pid])
        compared = compare(plain, stateful(what, much, part), rounds)
        return Burden(compared, resident_megabytes([much.worker.pid]))

    with world(broker_url) as little, world(broker_url) as much:
        plain = stateful("little", little, part)
        with much.connected("owner") as owner:
            clone(owner, much.addresses["many"][0], sizes.mounted, label=1)
        yield measured(f"{sizes.mounted:,} mounted instances")
        fill(much, "waiting", sizes.waiting)
        yield measured(f"and {sizes.waiting:,} messages of another dispatch point")
        with much.connected("caller") as caller:
            busy = caller.proxy(much.addresses["busy"][0])
            busy.send_message(busy.package_input_message({"number": 0, "seconds": 3600.0}))
        fill(much, "busy", sizes.behind)
        yield measured(f"and {sizes.behind:,} messages behind a turn that takes long")


def fill(within: World, endpoint: str, count: int) -> None:
    """Send ``count`` messages for nobody to work off."""
    with within.connected("caller") as caller:
        flow = caller.proxy(within.addresses[endpoint][0])

        def send(numbers: range) -> None:
            for number in numbers:
                flow.send_message(flow.package_input_message({"number": number, "seconds": 0.0}))

        with ThreadPoolExecutor(SENDERS) as pool:
            list(pool.map(send, [range(first, count, SENDERS) for first in range(SENDERS)]))


def memory(broker_url: str, sizes: Sizes) -> Figure:
    """A worker that has touched many instances."""
    with world(broker_url, instances=sizes.touched) as within:
        within.client.ask({"target": "many:callbacks", "count": sizes.touched, "window": min(500, sizes.touched)})
        used = resident_megabytes([within.worker.pid])
    return Figure(f"worker that touched {sizes.touched:,} instances, RSS", used, "MB", asked="at most 300")


def waiting_turns(broker_url: str, sizes: Sizes) -> Figure:
    """Async turns that all wait at once."""
    with world(broker_url) as within, within.connected("caller") as caller:
        flow = caller.proxy(within.addresses["sleeper"][0])
        flow.ask({"number": 0, "seconds": 0.0}, timeout=60)
        left = threading.Semaphore(0)
        begin = time.perf_counter()
        for number in range(sizes.turns):
            future = flow.submit({"number": number, "seconds": sizes.sleep})
            future.add_done_callback(lambda _future: left.release())
        for _ in range(sizes.turns):
            left.acquire()
        seconds = time.perf_counter() - begin
    return Figure(f"{sizes.turns:,} async turns that wait {sizes.sleep:g} s each", seconds, "s", asked="at most 7")
