"""A turn that ends after another worker has taken its partition over changes nothing: it is run again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from coflows import AtomicFlow, Client, FlowMessage
from coflows.dispatch.lease import Lease
from coflows.model.layout import done_key
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60


class Gate(AtomicFlow):
    """Counts, and at its first turn waits until the test lets it go on."""

    default_config = {"name": "Gate", "description": "Waits."}
    runs: list[str] = []
    begun = threading.Event()
    go_on = threading.Event()

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.runs.append(input_message.message_id)
        self.begun.set()
        assert self.go_on.wait(TIMEOUT)
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"count": self.flow_state["count"]}


def test_a_turn_under_a_lease_that_was_taken_over_is_run_again(users: Callable[..., list[Client]]) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Gate", "gate")
    flow = get_flow_instance(caller, "gate", user_id=owner.user_id)
    message = flow.package_input_message({})
    future = flow.get_reply_future(message)
    assert Gate.begun.wait(TIMEOUT)
    partition = flow.address.partition
    assert partition is not None
    Lease(owner.store, "another", flow.address.dispatch_point, partition).take()
    Gate.go_on.set()
    assert future.get_data(TIMEOUT) == {"count": 1}
    assert Gate.runs == [message.message_id] * 2, "it was committed under a lease that another worker had"
    assert owner.store.get(done_key(flow.address.flow_id, message.message_id)) is not None
