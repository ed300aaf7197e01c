"""How long it takes to fetch an instance with many subflows, at one user or many."""

from __future__ import annotations

import time
from typing import Any, ClassVar

from coflows import CompositeFlow, FlowMessage, start_users
from coflows.serving import get_flow_instance, serve_flow
from workers import run_get_instance_worker_thread


class Wide(CompositeFlow):
    """A flow whose subflows are given as overrides."""

    default_config: ClassVar[dict[str, Any]] = {
        "name": "Wide",
        "description": "Has as many subflows as it is given.",
        "subflows_config": {"s0": {"user_id": "local", "flow_endpoint": "leaf"}},
    }

    def run(self, input_message: FlowMessage) -> None:
        return None


def fetch_seconds(broker_url: str | None, subflows: int, owners: int, times: int) -> list[float]:
    """Seconds of each fetch of a flow with ``subflows`` subflows, dealt out over ``owners`` users."""
    users = start_users(owners + 1, broker_url)
    try:
        caller, others = users[0], users[1:]
        for cl in others:
            run_get_instance_worker_thread(cl)
            serve_flow(cl, "EchoFlowModule.EchoFlow", "leaf")
        serve_flow(caller, "benchmarks.trees.Wide", "wide")
        config = {
            f"s{number}": {"user_id": others[number % owners].user_id, "flow_endpoint": "leaf"}
            for number in range(subflows)
        }
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            get_flow_instance(caller, "wide", config_overrides={"subflows_config": config})
            taken.append(time.perf_counter() - begin)
        return taken
    finally:
        for cl in reversed(users):
            cl.close()
