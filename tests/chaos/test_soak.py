"""A short soak; ``make chaos`` runs it for as long as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.soak import left_behind, soak
from tests.chaos.world import Load, Worlds
from tests.services.rabbitmq import RabbitMQ

SEED = 3


@pytest.mark.rabbitmq
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_short_soak(rabbitmq_node: RabbitMQ, tmp_path: Path) -> None:
    outcome = soak(rabbitmq_node, tmp_path, seed=SEED, seconds=75)
    assert outcome.good, f"SEED={SEED} make chaos: {outcome}"
    assert outcome.verdict.sent == 10_000
    assert sum(len(times) for times in outcome.recoveries.values()) >= 5


@pytest.mark.rabbitmq
def test_what_is_left_is_seen(worlds: Worlds) -> None:
    with worlds() as made:
        worker = made.worker()
        load = Load(made.witnesses(2, 0))
        load.send(1)
        assert load.verdict().good
        worker.finish()
        assert left_behind(made) == []
        load.send(1)
        made.bob.store.commit({"parked:here": b""})
        left = left_behind(made)
        assert left[-1] == "parked:here"
        assert sum("a message of" in one for one in left) >= 1
        assert left_behind(made) == ["parked:here"]
