"""A seeded simulation of the pure parts: queues, workers that die and freeze, and an oracle over what was applied.

``SEEDS=10000 make simulate`` runs more; a failing seed is printed and ``SEED=n make simulate`` runs it again.
"""

from __future__ import annotations

import os

import pytest

from coflows.dispatch.admission import Admission
from coflows.dispatch.batch import Batch, Commands
from coflows.dispatch.sequencing import Sequencer
from tests.simulation.run import Job, simulate

FIRST = int(os.environ.get("SEED", "0"))
SEEDS = 1 if "SEED" in os.environ else int(os.environ.get("SEEDS", "300"))


def test_nothing_is_lost_or_applied_twice_or_out_of_order() -> None:
    for seed in range(FIRST, FIRST + SEEDS):
        verdict = simulate(seed)
        assert verdict.good, f"SEED={seed} make simulate: {verdict}"


MUTATIONS = (
    "ack before commit",
    "no epoch",
    "no dedupe",
    "no numbers",
    "goes on after a refusal",
    "keeps what was refused",
)


def noticed(mutation: str = "") -> bool:
    """Whether some seed goes wrong."""
    for seed in range(2000):
        try:
            if not simulate(seed, mutation).good:
                return True
        except Exception:
            return True
    return False


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_the_oracle_bites(mutation: str) -> None:
    assert noticed(mutation)


def _lets_all_through(
    self: Sequencer[Job], key: tuple[str, str], number: int, job: Job | None, now: float
) -> list[Job]:
    return [] if job is None else [job]


def _forgets_nothing(self: Sequencer[Job], flow_ids: set[str]) -> None:
    return None


def _frees_all_lanes(self: Admission[Job], batch: Batch[Job]) -> Commands[Job]:
    for lane in batch.lanes:
        del self._taken[lane]
        if lane in self._lanes:
            self._ready.append(lane)
    batch.lanes.clear()
    return self._fill()


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (Sequencer, "offer", _lets_all_through),
        (Sequencer, "forget", _forgets_nothing),
        (Admission, "let_go", _frees_all_lanes),
    ],
)
def test_the_engines_own_decisions_are_under_test(
    owner: type, name: str, broken: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    assert noticed()
