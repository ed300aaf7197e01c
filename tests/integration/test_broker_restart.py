"""A RabbitMQ node that goes and comes back: who talks to it goes on."""

from __future__ import annotations

import pytest

from coflows import start_users
from coflows.serving import get_flow_instance, serve_flow
from tests.services.rabbitmq import RabbitMQ
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60

pytestmark = [pytest.mark.rabbitmq, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("how", ["halt", "kill"])
def test_calls_survive_a_restart_of_the_broker(rabbitmq_node: RabbitMQ, how: str) -> None:
    owner, client = start_users(2, rabbitmq_node.url)
    with owner, client:
        run_dispatch_worker_thread(owner)
        run_get_instance_worker_thread(owner)
        serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
        flow = get_flow_instance(client, "counter", user_id=owner.user_id)
        futures = [flow.get_reply_future(flow.package_input_message({})) for _ in range(20)]
        getattr(rabbitmq_node, how)()
        rabbitmq_node.start()
        futures += [flow.get_reply_future(flow.package_input_message({})) for _ in range(20)]
        assert [future.get_data(TIMEOUT)["count"] for future in futures] == list(range(1, 41))


def test_calls_survive_the_closing_of_all_connections(rabbitmq_node: RabbitMQ) -> None:
    owner, client = start_users(2, rabbitmq_node.url)
    with owner, client:
        run_dispatch_worker_thread(owner)
        run_get_instance_worker_thread(owner)
        serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
        flow = get_flow_instance(client, "counter", user_id=owner.user_id)
        futures = []
        for _ in range(3):
            futures += [flow.get_reply_future(flow.package_input_message({})) for _ in range(20)]
            rabbitmq_node.control("close_all_connections", "for the test")
        assert [future.get_data(TIMEOUT)["count"] for future in futures] == list(range(1, 61))
