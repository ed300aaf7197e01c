"""Replies that a queue does not take: the message is not worked off again and again for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from coflows import Client
from coflows.broker.topology import dispatch_queue, session_queue
from coflows.dispatch.records import is_session
from coflows.errors import BrokerError
from coflows.model.messages import new_message_id
from coflows.serving import get_flow_instance, serve_flow
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


def test_a_dispatch_point_is_no_session_whatever_its_name() -> None:
    user = "a" * 52
    assert is_session(session_queue(user, new_message_id()).name)
    assert not is_session(dispatch_queue(user, "my.session.point", 0).name)
