"""Two machines share one user's dispatch point over RabbitMQ and PostgreSQL; one of them is lost under load."""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from coflows.dead_letters import list_dead_letters
from coflows.store import open_store, postgres
from coflows.store.postgres import PostgresStore
from tests.chaos.running import holders, running, until
from tests.chaos.world import Load, Worlds
from tests.services.netns import Namespace
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(300)]
HEARTBEAT = 2


@pytest.fixture
def machines() -> Iterator[list[Namespace]]:
    """Network namespaces: what runs in one of them reaches the others' services over its link alone."""
    machines = [Namespace(1), Namespace(2)]
    yield machines
    for machine in machines:
        machine.close()


@pytest.fixture
def server(machines: list[Namespace]) -> Iterator[Postgres]:
    server = Postgres()
    try:
        yield server.start(*(machine.near for machine in machines))
    finally:
        server.stop()


@pytest.mark.rabbitmq
@pytest.mark.parametrize("how", ["link cut and healed", "power cut"])
def test_one_of_two_machines_is_lost(
    how: str, machines: list[Namespace], server: Postgres, rabbitmq_node: RabbitMQ, worlds: Worlds
) -> None:
    with worlds(store_url=server.url) as made:
        workers = [
            made.worker(
                broker_url=f"{rabbitmq_node.listen(machine.near)}?heartbeat={HEARTBEAT}",
                store_url=server.url_at(machine.near),
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


def test_a_machine_lost_in_the_middle_of_a_commit_holds_nobody_up(
    machines: list[Namespace], server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of its transaction has come: for the server that is neither idle nor at its end, and it has locks."""
    soon = re.sub(r"(keepalives_\w+) = \d", r"\1 = 1", postgres.SESSION.replace("10000", "1000"))
    monkeypatch.setattr(postgres, "SESSION", soon)
    machine, cut, versions = machines[0], threading.Event(), list[int]()
    with machine.inside():
        lost = open_store(server.url_at(machine.near), namespace="shared")
    other = open_store(server.url, namespace="shared")
    assert isinstance(lost, PostgresStore)
    write = lost._groups._write

    def write_and_be_cut(connection: psycopg.Connection[Any], *arguments: Any) -> None:
        write(connection, *arguments)
        with connection.pipeline():
            pass  # It sends what has gathered.
        machine.outward.silent = machine.inward.silent = not cut.is_set()
        cut.set()

    def commit() -> None:
        with machine.inside():
            versions.append(lost.commit({"a": b"lost"}))

    monkeypatch.setattr(lost._groups, "_write", write_and_be_cut)
    thread = threading.Thread(target=commit)
    thread.start()
    cut.wait(60)
    first = other.commit({"a": b"other"})
    machine.outward.silent = machine.inward.silent = False
    thread.join()
    entry = other.get("a")
    assert entry is not None and entry.value == b"lost"
    assert versions == [entry.version] and entry.version > first
    for store in (lost, other):
        store.close()
