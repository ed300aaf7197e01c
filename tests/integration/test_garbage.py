"""What is left of a turn when it is over: workers collect garbage seldom, so nothing of it may lie in circles."""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Callable

import pytest

from coflows import Client
from coflows.errors import RemoteFlowError
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60
TURNS = 8
FLOWS = {
    "in a thread": "CounterFlowModule.CounterFlow",
    "that raises": "tests.flow_classes.Faulty",
    "that asks another": "tests.flow_classes.Chain",
    "on the event loop": "tests.flow_classes.Async",
    "on the event loop that asks": "tests.flow_classes.AsyncChain",
    "in a process": "tests.process_flows.Counter",
    "in a process that asks": "tests.process_flows.Link",
    "on the event loop of a process": "tests.process_flows.AsyncLink",
}


@pytest.mark.parametrize("kind", FLOWS)
def test_a_turn_that_is_over_refers_to_nothing_that_refers_to_it(kind: str, users: Callable[..., list[Client]]) -> None:
    """Its message went with it, and large ones took a worker's memory until garbage was collected."""
    owner, caller = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, FLOWS[kind], "flow")
    for endpoint in ("end", "counter"):
        serve_flow(owner, "tests.flow_classes.End", endpoint)
    worker = run_dispatch_worker_thread(owner)
    flows = [get_flow_instance(caller, "flow", user_id=owner.user_id) for _ in range(TURNS)]

    def ask_all() -> None:
        for flow in flows:
            with contextlib.suppress(RemoteFlowError):
                flow.ask({}, TIMEOUT)

    ask_all()
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        ask_all()
        worker.stop()
        gc.collect()
        left = Counter(type(one) for one in gc.garbage if type(one).__module__.startswith("coflows."))
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    # Clients of tests before may end meanwhile.
    assert [kind for kind, count in left.items() if count >= TURNS / 2] == []
