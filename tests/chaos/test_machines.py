"""Two machines share one user's dispatch point over RabbitMQ and PostgreSQL; one of them is lost under load."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from coflows.dead_letters import list_dead_letters
from tests.chaos.running import holders, running, until
from tests.chaos.world import Load, Worlds
from tests.services.netns import Namespace
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.postgres, pytest.mark.timeout(300)]
HEARTBEAT = 2


@pytest.fixture
def machines() -> Iterator[list[Namespace]]:
    """Network namespaces: what runs in one of them reaches the others' services over its link alone."""
    machines = [Namespace(1), Namespace(2)]
    yield machines
    for machine in machines:
        machine.close()


@pytest.fixture
def postgres(machines: list[Namespace]) -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server.start(*(machine.near for machine in machines))
    finally:
        server.stop()


@pytest.mark.parametrize("how", ["link cut and healed", "power cut"])
def test_one_of_two_machines_is_lost(
    how: str, machines: list[Namespace], postgres: Postgres, rabbitmq_node: RabbitMQ, worlds: Worlds
) -> None:
    with worlds(store_url=postgres.url) as made:
        workers = [
            made.worker(
                broker_url=f"{rabbitmq_node.listen(machine.near)}?heartbeat={HEARTBEAT}",
                store_url=postgres.url_at(machine.near),
                namespace=machine,
                forever=False,
            )
            for machine in machines
        ]
        made.worker("bob")
        load = Load(made.witnesses(12, 3))
        with running(load):
            until(lambda: len(set(holders(made).values())) == 2)
            lost = machines[0]
            lost.outward.silent = lost.inward.silent = True  # Nobody hears of its end.
            if how == "power cut":
                workers[0].signal(signal.SIGKILL)
        load.send(3)
        verdict = load.verdict()
        assert verdict.good, verdict
        if how == "link cut and healed":
            lost.outward.silent = lost.inward.silent = False
            load.send(5)
            verdict = load.verdict()
            assert verdict.good, verdict
            assert not workers[0].died.is_set()
        assert list_dead_letters(made.alice) == []
