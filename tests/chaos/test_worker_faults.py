"""Workers that die at every point of a message's life, freeze and thaw, and speak an older envelope."""

from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from coflows.dead_letters import list_dead_letters
from tests.chaos.lives import Lives
from tests.chaos.nursery import Brood
from tests.chaos.world import Load, World

DEATHS = int(os.environ.get("DEATHS", "12"))
"""At each point; ``make chaos-failpoints`` asks for 200."""
FREEZE = 30.0
FROZEN_TURNS = 150
"""Of a quarter of a second, to each instance: work for somewhat longer than the worker is frozen."""
POINTS = {
    "before its commit": "before_commit",
    "after the commit before the ack": "after_publish",
    "mid-turn": "mid_turn",
    "after the commit before publishing": "after_commit",
    # The turn's record is the outbox: it is there before anything is published, and is not cleared after it.
    "after publishing before the outbox is cleared": "mid_publish",
}
pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240 + 6 * DEATHS)]


@pytest.fixture
def nursery(made: World) -> Brood:
    # No message is to blame for these deaths, however often it is there.
    made.environment["COFLOWS_MAX_ATTEMPTS"] = "100"
    return made.brood


@pytest.mark.parametrize("when", POINTS)
def test_worker_killed(when: str, made: World, nursery: Brood) -> None:
    dice = random.Random(when)
    lives = Lives(nursery, "alice", (f"{POINTS[when]}:{dice.randint(1, 12)}" for _ in range(DEATHS)))
    load = Load(made.witnesses(8, 0))
    sending = threading.Thread(target=load.send_until, args=(lives.last,))
    sending.start()
    sending.join()
    verdict = load.verdict()
    lives.stop()
    assert verdict.good, verdict
    assert lives.deaths == DEATHS
    assert list_dead_letters(made.alice) == []


def test_a_worker_that_thaws_changes_nothing(made: World, nursery: Brood) -> None:
    """Frozen in the middle of turns, its partitions taken over, thawed while the other one still works on them."""
    frozen = nursery.worker("alice")
    frozen.ready.wait(60)
    load = Load(made.witnesses(4, 0))
    load.send(2)
    load.wait()
    load.send(FROZEN_TURNS, seconds=0.25)
    frozen.signal(signal.SIGSTOP)
    made.node.control("close_all_connections", "its worker is frozen")
    other = nursery.worker("alice")
    time.sleep(FREEZE)
    assert 0 < load.answered < load.count, "the other worker should be at work when it thaws"
    frozen.signal(signal.SIGCONT)
    verdict = load.verdict()
    assert verdict.good, verdict
    assert not frozen.died.is_set() and not other.died.is_set()


def test_rolling_upgrade_of_the_envelope(made: World, nursery: Brood) -> None:
    """Clients and workers that write version 1 beside those that write version 2, replaced one by one under load."""
    old, new = {"COFLOWS_ENVELOPE_VERSION": "1"}, {"COFLOWS_ENVELOPE_VERSION": "2"}
    first, second, bob = (nursery.worker(user, environment=old) for user in ("alice", "alice", "bob"))
    for worker in (first, second, bob):
        worker.ready.wait(60)
    loads = []
    for version in (1, 2):
        cl = made.open("carol", COFLOWS_ENVELOPE_VERSION=str(version))
        assert cl.settings.envelope_version == version
        loads.append(Load(made.witnesses(3, 1, cl)))
    ended = threading.Event()
    sending = [threading.Thread(target=load.send_until, args=(ended,)) for load in loads]
    for thread in sending:
        thread.start()
    for user, worker in (("alice", first), ("bob", bob), ("alice", second)):
        before = [load.count for load in loads]
        nursery.worker(user, environment=new).ready.wait(60)
        worker.signal(signal.SIGTERM)
        worker.died.wait(60)
        for load, count in zip(loads, before, strict=True):
            load.wait_for(count + 20)
    ended.set()
    for thread in sending:
        thread.join()
    for load in loads:
        verdict = load.verdict()
        assert verdict.good and verdict.sent > 60, verdict
