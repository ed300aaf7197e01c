"""Workers that die at every point of a message's life, freeze and thaw, and speak an older envelope."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from coflows.dead_letters import list_dead_letters
from tests.chaos.lives import Lives
from tests.chaos.nursery import Nursery
from tests.chaos.world import Load, World, world
from tests.services.rabbitmq import RabbitMQ

DEATHS = int(os.environ.get("DEATHS", "12"))
"""At each point; ``make chaos-failpoints`` asks for 200."""
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
def made(rabbitmq_node: RabbitMQ, tmp_path: Path) -> Iterator[World]:
    with world(rabbitmq_node, tmp_path) as made:
        yield made


@pytest.fixture
def nursery(made: World) -> Iterator[Nursery]:
    nursery = Nursery(made.environment)
    yield nursery
    nursery.close()


@pytest.mark.parametrize("when", POINTS)
def test_worker_killed(when: str, made: World, nursery: Nursery) -> None:
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
