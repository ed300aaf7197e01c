"""A seeded simulation of the pure parts: queues, workers that die and freeze, and an oracle over what was applied.

``SEEDS=10000 make simulate`` runs more; a failing seed is printed and ``SEED=n make simulate`` runs it again.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.run import simulate

FIRST = int(os.environ.get("SEED", "0"))
SEEDS = 1 if "SEED" in os.environ else int(os.environ.get("SEEDS", "300"))


def test_nothing_is_lost_or_applied_twice_or_out_of_order() -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        verdict = simulate(seed)
        assert verdict.good, f"SEED={seed} make simulate: {verdict}"


@pytest.mark.parametrize("mutation", ["ack before commit", "no epoch", "no dedupe", "no numbers"])
def test_the_oracle_bites(mutation: str) -> None:
    assert any(not simulate(seed, mutation).good for seed in range(200)), f"nobody noticed: {mutation}"
