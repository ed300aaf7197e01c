"""Replies that a queue does not take: the message is not worked off again and again for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from coflows import Client
from coflows.broker.topology import dispatch_queue, session_queue
from coflows.dispatch.records import is_session
from coflows.dispatch.refused import LONGER_PAUSE, Refused
from coflows.errors import BrokerError
from coflows.model.messages import new_message_id
from coflows.serving import get_flow_instance, serve_flow
from tests import flow_classes
from tests.waiting import until
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30


def test_a_session_that_refuses_its_replies_asks_for_them(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    flow = get_flow_instance(caller, "counter", user_id=owner.user_id)
    publish, refused = owner.broker.publish_async, []

    def refuse(queue: str, body: bytes) -> Future[None]:
        if queue != session_queue(caller.user_id, caller.session.id).name:
            return publish(queue, body)
        refused.append(queue)
        future: Future[None] = Future()
        future.set_exception(BrokerError("The queue is full."))
        return future

    monkeypatch.setattr(owner.broker, "publish_async", refuse)
    future = flow.get_reply_future(flow.package_input_message({}))
    until = time.monotonic() + TIMEOUT
    while not refused and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.5)
    assert len(refused) == 1
    monkeypatch.undo()
    assert caller.reopen_future(future.key).get_data(TIMEOUT) == {"count": 1}


@pytest.mark.parametrize("parked", [False, True])
def test_an_instance_whose_queue_refuses_a_reply_gets_it_later(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch, parked: bool
) -> None:
    """Its message is not given back, and its reply sent, again and again meanwhile."""
    if parked:
        monkeypatch.setenv("COFLOWS_PARK_AFTER", "0.01")
    asked, asking = users(2)
    for cl in (asked, asking):
        run_dispatch_worker_thread(cl)
        run_get_instance_worker_thread(cl)
    serve_flow(asked, "tests.flow_classes.GatedFromTwo", "end")
    serve_flow(asked, "CounterFlowModule.CounterFlow", "counter")
    serve_flow(asking, "tests.flow_classes.Pushing", "pushing")
    counter = get_flow_instance(asking, "counter", user_id=asked.user_id)
    overrides = {"subflows_config": {"next": {"user_id": asked.user_id}}}
    flow = get_flow_instance(asking, "pushing", config_overrides=overrides)
    queue = dispatch_queue(asking.user_id, "coflows_dispatch", flow.address.partition).name
    publish, refused, refusing = asked.broker.publish_async, threading.Semaphore(0), threading.Event()
    refusing.set()
    tick, go_on = Refused.tick, threading.Event()

    def refuse(name: str, body: bytes) -> Future[None]:
        if name != queue or not refusing.is_set():
            return publish(name, body)
        refused.release()
        future: Future[None] = Future()
        future.set_exception(BrokerError("The queue is full."))
        return future

    monkeypatch.setattr(asked.broker, "publish_async", refuse)
    monkeypatch.setattr(Refused, "tick", lambda self, now: tick(self, now + LONGER_PAUSE) if go_on.is_set() else None)
    flow_classes.GATE.clear()
    future = flow.get_reply_future(flow.package_input_message({"number": 2}))
    if parked:
        until(asked.store, "parked:", lambda: bool(asked.read_keys("parked:")), "no parked message")
    flow_classes.GATE.set()
    assert refused.acquire(timeout=TIMEOUT)
    for number in range(5):
        assert counter.ask({}, TIMEOUT) == {"count": number + 1}
    assert not refused.acquire(blocking=False)
    refusing.clear()
    go_on.set()
    assert future.get_data(TIMEOUT) == {"through": 2, "id": None}
    until(asked.store, "parked:", lambda: not asked.read_keys("parked:"), "a parked message")


def test_a_dispatch_point_is_no_session_whatever_its_name() -> None:
    user = "a" * 52
    assert is_session(session_queue(user, new_message_id()).name)
    assert not is_session(dispatch_queue(user, "my.session.point", 0).name)
