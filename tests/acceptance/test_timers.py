"""Timers that a flow sets: worked off once, taken back, kept over restarts, gone with the instance."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coflows import Client, connect
from coflows.errors import RemoteFlowError
from coflows.proxy import FlowProxy
from coflows.serving import delete_flow_instance, get_flow_instance, serve_flow
from tests.waiting import until
from tests.worker_processes import StartWorker
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
Users = Callable[..., list[Client]]


def alarm(owner: Client, caller: Client) -> FlowProxy:
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.Alarm", "alarm")
    return get_flow_instance(caller, "alarm", owner.user_id)


def waits(flow: FlowProxy) -> Callable[[], list[str]]:
    future = flow.get_reply_future(flow.package_input_message({"wait": True}))
    return lambda: list(future.get_data(TIMEOUT)["rung"])


def test_a_timer_rings_once_and_may_set_another(users: Users, broker_url: str) -> None:
    owner, caller = users(2, broker_url)
    workers = [run_dispatch_worker_thread(owner) for _ in range(2)]
    flow = alarm(owner, caller)
    heard = waits(flow)
    flow.ask({"ring": "first", "seconds": 0.1, "again": "second"}, TIMEOUT)
    assert heard() == ["first"]
    heard = waits(flow)
    flow.ask({"ring": "third", "seconds": 0.3}, TIMEOUT)
    assert heard()[:2] == ["first", "second"]
    assert flow.ask({"ring": "never", "seconds": 3600}, TIMEOUT)["rung"][:2] == ["first", "second"]
    for worker in workers:
        worker.stop()
    assert len(owner.read_keys("due:")) == len(owner.read_keys("timers:")) <= 2


def test_a_timer_is_taken_back_and_one_of_a_turn_that_raises_was_never_set(users: Users) -> None:
    owner, caller = users(2)
    flow = alarm(owner, caller)
    flow.send_message(flow.package_input_message({"ring": "gone", "seconds": 0}))
    flow.send_message(flow.package_input_message({"cancel": "gone"}))  # Both turns may share one commit.
    failing = flow.get_reply_future(flow.package_input_message({"ring": "failed", "seconds": 0, "raise": True}))
    flow.send_message(flow.package_input_message({"ring": "late", "seconds": 0.2}))
    heard = waits(flow)
    run_dispatch_worker_thread(owner)
    assert heard() == ["late"]
    with pytest.raises(RemoteFlowError, match="sets no timer"):
        failing.get_data(TIMEOUT)
    assert owner.read_keys("due:") == owner.read_keys("timers:") == []


def test_nobody_else_can_ring(users: Users) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    flow = alarm(owner, caller)
    message = flow.package_input_message({"ring": "forged", "seconds": 3600})
    message.src_flow_id = flow.get_instance_id()
    assert flow.get_reply_future(message).get_data(TIMEOUT) == {"rung": []}, "it is a message like any other"


def test_timers_and_records_go_with_their_instance(users: Users) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    flow = alarm(owner, caller)
    heard = waits(flow)
    flow.ask({"ring": "soon", "seconds": 0}, TIMEOUT)
    heard()
    flow.ask({"ring": "late", "seconds": 3600}, TIMEOUT)
    assert owner.read_keys("due:") and owner.read_keys("timers:") and owner.read_keys("records:")
    delete_flow_instance(owner, flow.get_instance_id())
    assert owner.read_keys("due:") == owner.read_keys("timers:") == owner.read_keys("records:") == []


def test_a_timer_survives_all_its_processes(start_worker: StartWorker) -> None:
    first = start_worker()
    with connect("owner") as owner, connect("caller") as caller:
        serve_flow(owner, "tests.flow_classes.Alarm", "alarm")
        flow = get_flow_instance(caller, "alarm", owner.user_id)
        flow.ask({"ring": "after all", "seconds": 0.5}, TIMEOUT)
        heard = waits(flow)
        first.kill()
        first.wait()
        start_worker()
        assert heard() == ["after all"]


@pytest.mark.parametrize("point", ["before_commit", "mid_turn", "after_commit"])
def test_a_worker_dies_over_a_timer(start_worker: StartWorker, point: str) -> None:
    doomed = start_worker(f"{point}:3")
    with connect("owner") as owner, connect("caller") as caller:
        serve_flow(owner, "tests.flow_classes.Alarm", "alarm")
        flow = get_flow_instance(caller, "alarm", owner.user_id)
        heard = waits(flow)
        # Turns that are ready together are one commit, and commits are counted here.
        until(owner.store, "done:", lambda: bool(owner.read_keys("done:")), "the first turn's record is not there")
        flow.ask({"ring": "once", "seconds": 0.5}, TIMEOUT)
        doomed.wait(TIMEOUT)
        start_worker()
        assert heard() == ["once"]
        assert flow.ask({}, TIMEOUT) == {"rung": ["once"]}
        assert owner.read_keys("due:") == []
