"""A message that is sent again comes under a new number; who takes over later does not wait for that number."""

from __future__ import annotations

from collections.abc import Callable

from coflows import Client
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

PATIENCE = 20
"""Less than a worker waits for a number that is missing."""


def test_the_number_of_a_message_that_was_worked_off_before_is_not_waited_for(
    users: Callable[..., list[Client]], broker_url: str
) -> None:
    owner, caller = users(2, broker_url)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.Recorder", "recorder")
    flow = get_flow_instance(caller, "recorder", owner.user_id)
    first, second = (flow.package_input_message({"number": number}) for number in (1, 2))
    with run_dispatch_worker_thread(owner):
        for _ in range(3):
            assert flow.get_reply_future(first).get_data(PATIENCE) == {"seen": [1]}
    with run_dispatch_worker_thread(owner):
        assert flow.get_reply_future(second).get_data(PATIENCE) == {"seen": [1, 2]}
