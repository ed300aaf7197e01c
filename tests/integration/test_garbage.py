"""What is left of a turn when it is over: workers collect garbage seldom, so nothing of it may lie in circles."""

from __future__ import annotations

import gc
from collections.abc import Callable

from coflows import Client
from coflows.dispatch.turn import Turn
from coflows.dispatch.work import Work
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60


def test_a_turn_that_is_over_refers_to_nothing_that_refers_to_it(users: Callable[..., list[Client]]) -> None:
    """Its message went with it, and large ones took a worker's memory until garbage was collected."""
    owner, caller = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    worker = run_dispatch_worker_thread(owner)
    flow = get_flow_instance(caller, "counter", user_id=owner.user_id)
    flow.ask({}, TIMEOUT)
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(20):
            flow.ask({}, TIMEOUT)
        worker.stop()
        gc.collect()
        left = [type(one).__name__ for one in gc.garbage if isinstance(one, Turn | Work)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert left == []
