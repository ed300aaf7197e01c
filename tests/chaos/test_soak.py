"""A short soak; ``make chaos`` runs it for as long as asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.soak import soak
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
