"""The main job of the walk-through, on every broker and store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coflows import Client
from coflows.inspection import flows_tree
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30


def run_main_job(server: Client, client: Client, sequential: str) -> None:
    for cl in (server, client):
        run_dispatch_worker_thread(cl)
        run_get_instance_worker_thread(cl)
    atomic = "ReverseNumberFlowModule.ReverseNumberAtomicFlow"
    assert serve_flow(cl=server, flow_class_name=atomic, flow_endpoint="reverse_number_atomic", singleton=True) is True
    assert serve_flow(server, atomic, "reverse_number_atomic") is False
    assert serve_flow(client, f"ReverseNumberFlowModule.{sequential}", "reverse_number_sequential") is True
    at_server = {"user_id": server.get_user_id()}
    flow = get_flow_instance(
        cl=client,
        flow_endpoint="reverse_number_sequential",
        user_id="local",
        config_overrides={"subflows_config": {"first_reverse_flow": at_server, "second_reverse_flow": at_server}},
    )
    message = flow.package_input_message({"id": 0, "number": 1234})
    assert flow.get_reply_future(message).get_data(TIMEOUT) == {"output_number": 1234}
    remote = get_flow_instance(client, "reverse_number_atomic", user_id=server.get_user_id())
    assert remote.ask({"id": 0, "number": 1234}, TIMEOUT) == {"output_number": 4321}

    instance = flow.get_instance_id()
    serve = ("default_dispatch_point", "flow_class_name", "init", "parallel_dispatch", "singleton")
    assert client.read_keys("flows:") == sorted(
        [f"flows:reverse_number_sequential:{field}" for field in serve]
        + [
            f"flows:reverse_number_sequential:mounts:local:{instance}:{field}"
            for field in ("config_overrides", "init", "state")
        ]
    )
    mounts = f"flows:reverse_number_atomic:mounts:{client.user_id}:{remote.get_instance_id()}"
    assert server.read_keys("flows:reverse_number_atomic:mounts:") == [
        f"{mounts}:{field}" for field in ("config_overrides", "init", "state")
    ]
    assert client.read_entry(f"instance_metadata:{instance}") == {
        "flow_endpoint": "reverse_number_sequential",
        "user_id": "local",
    }
    assert [str(child.label) for child in flows_tree(server).children] == ["reverse_number_atomic/"]


@pytest.mark.parametrize("sequential", ["ReverseNumberSequentialFlow", "ReverseNumberSequentialNonBlockingFlow"])
def test_the_main_job(users: Callable[..., list[Client]], broker_url: str, sequential: str) -> None:
    run_main_job(*users(2, broker_url), sequential)


@pytest.mark.postgres
def test_the_main_job_on_postgres(users: Callable[..., list[Client]], amqp_url: str, postgres_url: str) -> None:
    run_main_job(*users(2, amqp_url, postgres_url), "ReverseNumberSequentialFlow")
