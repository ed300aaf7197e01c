"""The cost of trust: calls with and without sealing, in one run, and what sealing alone takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from benchmarks.calls import contestants
from benchmarks.contest import compare
from benchmarks.processes import resident_megabytes
from benchmarks.report import Burden, Figure
from benchmarks.unsealed import open_plain, seal_plain, unsealed
from benchmarks.world import world
from coflows.identity.keyring import Keyring
from coflows.identity.keys import Identity
from coflows.identity.sealing import Item, open_envelope, seal_items
from coflows.model.messages import new_message_id

GATHERED = (1, 100)
"""Messages in one envelope: of a quiet caller, and of a busy one."""
ENVELOPES = 2_000


def burdens(name: str, broker_url: str, rounds: int, part: float) -> Iterator[Burden]:
    """What sealing costs over a broker: a world that seals, beside one that does not."""
    with world(broker_url) as sealing, unsealed(), world(broker_url, through=("-m", "benchmarks.unsealed")) as plain:
        for one, other in zip(contestants(name, sealing), contestants(name, plain), strict=True):
            one = replace(one, name=f"{one.name}, sealed")
            yield Burden(compare(other.part(part), one.part(part), rounds), resident_megabytes([sealing.worker.pid]))


def figures(part: float) -> Iterator[Figure]:
    """Processor time for sealing and opening one message of about 100 bytes, both ends together."""
    alice, bob = Identity.generate(), Identity.generate()
    mine, his = Keyring(alice), Keyring(bob)
    until = int(time.time()) + 3600
    for gathered in GATHERED:
        items = [Item(new_message_id(), bytes(100), "00" * 8, number + 1) for number in range(gathered)]

        def sealed(items: list[Item] = items) -> None:
            body = seal_items(alice, bob.user_id, until, items, way=mine.way_to(bob.user_id))
            open_envelope(bob, body, time.time(), 2**22, his)

        def plain(items: list[Item] = items) -> None:
            open_plain(bob, seal_plain(alice, bob.user_id, until, items), time.time(), 2**22)

        count = max(20, int(part * ENVELOPES / gathered))
        with_it, without = (_microseconds(one, count) / gathered for one in (sealed, plain))
        what = f"sealing and opening a message, {gathered} in an envelope, CPU"
        yield Figure(what, with_it, "us", with_it / without, "in the clear")


def _microseconds(work: Callable[[], None], count: int) -> float:
    work()
    rounds = []
    for _ in range(5):
        begin = time.process_time()
        for _ in range(count):
            work()
        rounds.append((time.process_time() - begin) / count * 1e6)
    return statistics.median(rounds)
