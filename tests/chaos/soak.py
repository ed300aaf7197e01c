"""The whole load under randomly drawn faults, one after the other; then everything is looked at for what is left."""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from coflows.broker.topology import dispatch_queues, door_queue
from coflows.dead_letters import list_dead_letters
from coflows.errors import BrokerUnavailableError, PoisonMessageError
from coflows.model import layout
from coflows.serving import get_flow_instance
from tests.chaos import faults
from tests.chaos.nursery import Nursery
from tests.chaos.oracle import Verdict
from tests.chaos.world import DRAIN, Load, World, world
from tests.services.netns import Namespace
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ

HALF_OPEN = 6.0
"""Seconds; the heartbeats of those behind the link are 2."""
AT_LEISURE = (
    "flows:",
    layout.METADATA,
    layout.FETCHED,
    "points:",
    "leases:",
    "workers:",
    layout.DONE,
    layout.DEAD,
    "replies:",
    "order:",
    "released:",
    "served",
    "swept",
    "usage:",
)
"""What keys of a store may begin with when there is nothing to do; all others are of unfinished work."""


@dataclass(slots=True)
class Outcome:
    """What came of a soak. ``recoveries``: for each fault, how many seconds after it was over all that had been sent
    until then was answered; None where the next fault came first. ``dead``: the dead letters that there are, and how
    many there should be."""

    verdict: Verdict
    left: list[str]
    dead: tuple[list[str], int]
    recoveries: dict[str, list[float | None]] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether every guarantee held, and nothing was left behind."""
        return self.verdict.good and not self.left and len(self.dead[0]) == self.dead[1]


class PersistentLoad(Load):
    """Whose sender, told after a minute that the broker is away, sends the same message again: it is applied once."""

    def send_one(self, name: str, *, seconds: float = 0.0) -> None:
        """See Load."""
        flow = self._flows[name]
        self._next += 1
        message = flow.package_input_message({"number": self._next, "seconds": seconds})
        while True:
            try:
                self._futures[name].append(flow.get_reply_future(message))
            except BrokerUnavailableError:
                continue
            self.sent[name].append(self._next)
            return


def soak(
    node: RabbitMQ,
    folder: Path,
    *,
    seed: int,
    seconds: float,
    messages: int = 10_000,
    instances: int = 200,
    only: Sequence[str] = (),
    tell: Callable[[str], None] = lambda _line: None,
) -> Outcome:
    """``messages`` to ``instances``, a fifth of them over two hops, spread over ``seconds``, with faults (``only``
    those named, if any are) until the last one is sent. A part of the senders and workers is behind a link of its own,
    and another behind a proxy."""
    dice = random.Random(seed)
    with ExitStack() as stack:
        namespace = stack.enter_context(closing(Namespace(seed)))
        proxy, outside = (
            stack.enter_context(closing(Proxy(node.url, address))) for address in ("127.0.0.1", namespace.near)
        )
        nursery = stack.enter_context(closing(Nursery(os.environ)))
        made = stack.enter_context(world(node, folder, nursery))
        far_url = f"{outside.url}?heartbeat=2"
        made.worker(broker_url=proxy.url)
        made.worker(broker_url=far_url, namespace=namespace)
        made.worker("bob")
        with namespace.inside():
            far = made.open("carol", far_url)
        few = instances // 10
        loads = [
            PersistentLoad(made.witnesses(instances * 4 // 5 - 2 * few, instances // 5)),
            PersistentLoad(made.witnesses(few, 0, made.open("carol", proxy.url))),
            PersistentLoad(made.witnesses(few, 0, far)),
        ]
        drawn: dict[str, faults.Fault] = {**faults.FAULTS, **_of_links(namespace, proxy)}
        drawn["poison message"] = poison
        names = list(only or drawn)
        recoveries: dict[str, list[float | None]] = {name: [] for name in names}
        with ThreadPoolExecutor(len(loads)) as threads:
            until = time.monotonic() + seconds
            sending = [threads.submit(_send, load, messages // instances, until) for load in loads]
            turn = dice.sample(names, len(names))
            while not all(one.done() for one in sending):
                if not turn:  # Each once before any comes again.
                    turn = dice.sample(names, len(names))
                name = turn.pop()
                tell(name)
                drawn[name](made, dice)
                recoveries[name].append(_recovered(loads) if dice.random() < 0.8 else None)
            for one in sending:
                one.result()
        verdict = sum((load.verdict() for load in loads[1:]), loads[0].verdict())
        for worker in made.workers:
            worker.finish()
        dead = [f"{one.queue}: {one.reason}" for one in list_dead_letters(made.alice)]
        return Outcome(verdict, left_behind(made), (dead, len(recoveries.get("poison message", ()))), recoveries)


def _send(load: Load, rounds: int, until: float) -> None:
    """Evenly spread over the time that there is; what a fault held up is caught up with."""
    start, idle = time.monotonic(), threading.Event()
    names = list(load.sent)
    step = (until - start) / (rounds * len(names))
    for number in range(rounds * len(names)):
        idle.wait(max(0.0, start + number * step - time.monotonic()))
        load.send_one(names[number % len(names)])


def _recovered(loads: Sequence[Load]) -> float | None:
    start = time.monotonic()
    futures = [future for load in loads for future in load.futures() if not future.done()]
    for future in futures:
        with suppress(Exception):
            future.get_data(DRAIN)
        if not future.done():
            return None
    return time.monotonic() - start


def _of_links(namespace: Namespace, proxy: Proxy) -> dict[str, faults.Fault]:
    def half_open(_world: World, dice: random.Random) -> None:
        for direction in dice.choice(([namespace.outward], [namespace.inward], [namespace.outward, namespace.inward])):
            direction.silent = True
        time.sleep(HALF_OPEN)
        namespace.outward.silent = namespace.inward.silent = False

    def slow(_world: World, _dice: random.Random) -> None:
        namespace.set(delay=0.2, loss=0.01)
        time.sleep(HALF_OPEN)
        namespace.set()

    def cut(_world: World, dice: random.Random) -> None:
        for _ in range(10):
            proxy.cut_after(dice.randrange(2000), answers=dice.random() < 0.5)
            proxy.cut_done.wait(5)
        proxy.mend()

    def unheard(_world: World, dice: random.Random) -> None:
        proxy.mute()
        proxy.swallowed.wait(5)
        time.sleep(dice.uniform(0.0, 1.0))
        proxy.mend()

    return {
        "link half-open": half_open,
        "latency and loss": slow,
        "connections cut at any byte": cut,
        "confirms lost": unheard,
    }


def poison(made: World, dice: random.Random) -> None:
    """A message that kills each worker that begins it, until it is given up."""
    deadly = made.folder / f"deadly{dice.getrandbits(32)}"
    deadly.touch()
    flow = get_flow_instance(made.carol, "poison", made.alice.user_id)
    with suppress(PoisonMessageError):
        flow.ask({"deadly_while": str(deadly)}, DRAIN)
    deadly.unlink()


def left_behind(made: World) -> list[str]:
    """What is in the queues and stores of a world whose work is done and whose workers are gone: of queues what a
    consumer gets (their message counts may lie after a restart), of stores the keys of unfinished work."""
    left = []
    for cl in (made.alice, made.bob):
        for queue in (door_queue(cl.user_id), *dispatch_queues(cl.user_id, "coflows_dispatch", 8)):
            while (delivery := cl.broker.get(queue.name)) is not None:
                left.append(f"a message of {len(delivery.body)} bytes in {queue.name}")
                delivery.ack()
    for cl in (made.alice, made.bob, made.carol):
        keys = cl.store.keys()
        left += [key for key in keys if not key.startswith(AT_LEISURE)]
    return left
