"""A pool's process out of memory, or killed, under load: one turn fails, its neighbours do not notice."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from coflows.dead_letters import list_dead_letters
from coflows.errors import WorkerDiedError, WorkerMemoryError
from coflows.futures import FlowFuture
from coflows.serving import get_flow_instance, serve_flow
from tests.chaos.world import Load, World

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]
TIMEOUT = 90


@pytest.fixture
def made(made: World) -> World:
    serve_flow(made.alice, "tests.chaos.pool_flows.PoolWitness", "pool_witness")
    return made


@pytest.mark.parametrize(("how", "kind"), [("out of memory", WorkerMemoryError), ("killed", WorkerDiedError)])
def test_a_pools_process_dies_under_load(how: str, kind: type[WorkerDiedError], made: World) -> None:
    workers = [made.worker(user) for user in ("alice", "alice", "bob")]
    alice = made.alice.user_id
    flows: dict[str, Any] = {f"pool{n}": get_flow_instance(made.carol, "pool_witness", alice) for n in range(4)}
    overrides = {"subflows_config": {"next": {"user_id": alice, "flow_endpoint": "pool_witness"}}}
    flows["relay to pool"] = get_flow_instance(made.carol, "relay", made.bob.user_id, config_overrides=overrides)
    # The same instances are asked to die between the messages of the load, and instances of their own all the time.
    load, neighbours = Load(flows), Load(made.witnesses(4, 1))
    doomed: list[FlowFuture] = []

    def kill() -> None:
        for flow in flows.values():
            doomed.append(flow.get_reply_future(flow.package_input_message({"die": how})))

    beside = threading.Thread(target=neighbours.send, args=(60,))
    beside.start()
    for _ in range(4):
        load.send(4)
        kill()
    load.send(4)
    beside.join()
    for future in doomed:
        with pytest.raises(Exception) as died:
            future.get_data(TIMEOUT)
        # The relay's own flow raised, with the error of the flow it asked.
        codes = {getattr(died.value, "remote_code", None), getattr(died.value, "code", None)}
        assert kind.code in codes, died.value
    for verdict in (load.verdict(), neighbours.verdict()):
        assert verdict.good, verdict
    assert list_dead_letters(made.alice) == [], "a process that dies is no poison"
    assert [worker.deaths for worker in workers] == [0, 0, 0]
