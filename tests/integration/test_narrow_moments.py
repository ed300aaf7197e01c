"""What happens between two steps of ours: nothing is lost that comes just then."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from coflows import AtomicFlow, Client, FlowMessage
from coflows.broker.topology import route_to
from coflows.codec.wire import encode
from coflows.dispatch import partitions, sequencing
from coflows.dispatch.batch import Batch
from coflows.dispatch.custody import Custody
from coflows.dispatch.job import Job
from coflows.dispatch.parking import ParkingLot
from coflows.dispatch.runner import Runner
from coflows.dispatch.work import Work
from coflows.dispatch.worker import DispatchWorker
from coflows.errors import BrokerUnavailableError, CallCancelledError
from coflows.failpoints import Failpoints
from coflows.identity.sealing import Item, seal_items
from coflows.model.calls import Call
from coflows.model.messages import new_message_id
from coflows.serving import get_flow_instance, serve_flow
from coflows.session import Incoming
from coflows.waiting import Waiting
from tests import flow_classes
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
FLOW_ID = "00000000-0000-0000-0000-000000000000"


class Quick(AtomicFlow):
    """Answers."""

    default_config = {"name": "Quick", "description": "Answers."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {}


def test_a_cancel_just_before_the_flow_runs_is_kept(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Quick", "quick")
    flow = get_flow_instance(caller, "quick", user_id=owner.user_id)
    sent, begun, told = threading.Event(), threading.Event(), threading.Event()
    cancel = Job.cancel

    def reach(_self: Failpoints, name: str) -> None:
        if name == "mid_turn" and sent.is_set():
            begun.set()
            assert told.wait(TIMEOUT)

    def tell(job: Job) -> None:
        cancel(job)
        told.set()

    monkeypatch.setattr(Failpoints, "reach", reach)
    monkeypatch.setattr(Job, "cancel", tell)
    sent.set()
    future = flow.get_reply_future(flow.package_input_message({}))
    assert begun.wait(TIMEOUT)
    assert future.cancel()
    with pytest.raises(CallCancelledError):
        caller.reopen_future(future.key).get_data(TIMEOUT)


def test_a_turn_that_ends_while_its_message_is_parked_is_not_waited_for(
    users: Callable[..., list[Client]], caplog: pytest.LogCaptureFixture
) -> None:
    store = users(1)[0].store
    source: Any = type("Source", (), {"lease": None, "settled": lambda _self, _jobs: None})()
    incoming = Incoming("a" * 52, new_message_id(), {}, b"")
    job = Job(None, incoming, Call(FLOW_ID), source, ("a" * 52, FLOW_ID, incoming.message_id))
    runner: Any = None
    custody = Custody(store, ParkingLot(store, "point", "me"), "point", runner, after=0.0)

    class TurnEnds(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "it is parked" in record.getMessage():
                custody.over(job)

    ends = TurnEnds()
    log = logging.getLogger(Custody.__module__)
    log.addHandler(ends)
    try:
        with caplog.at_level(logging.INFO, Custody.__module__):
            custody.tick([Work(Batch(), job=job, since=time.monotonic() - 1)])
    finally:
        log.removeHandler(ends)
    assert job.parked is not None
    assert custody.wait(0), "it is nobody's any more"


def test_nothing_is_expected_of_a_session_that_was_closed() -> None:
    waiting = Waiting(lambda _pending: None, lambda _pending: None)
    before = waiting.expect("1" * 32, "bob")
    waiting.close()
    assert isinstance(before.exception(0), BrokerUnavailableError)
    with pytest.raises(BrokerUnavailableError):
        waiting.expect("2" * 32, "bob")


def test_what_waits_at_a_parallel_endpoint_comes_again_when_its_queue_is_begun_again(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first delivery of a message must not be taken for one that is still worked off."""
    accept, waits = Runner.accept, threading.Semaphore(0)

    def accepted(runner: Runner, jobs: Iterable[Job], *, next: bool = False) -> None:
        jobs = list(jobs)
        accept(runner, jobs, next=next)
        for _ in jobs:
            waits.release()

    monkeypatch.setattr(Runner, "accept", accepted)
    monkeypatch.setattr(partitions, "HAND_ON_WAIT", 0.1)
    flow_classes.GATE.clear()
    owner, caller = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.GatedFromTwo", "gated", parallel_dispatch=True)
    worker = DispatchWorker(owner, "coflows_dispatch", concurrency=1)
    try:
        flow = get_flow_instance(caller, "gated", user_id=owner.user_id)
        futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in (2, 1)]
        assert waits.acquire(timeout=TIMEOUT) and waits.acquire(timeout=TIMEOUT)
        worker._feeds[0].cycle()
        flow_classes.GATE.set()
        assert [future.get_data(TIMEOUT) for future in futures] == [{"through": 2}, {"through": 1}]
    finally:
        flow_classes.GATE.set()
        worker.stop()


def test_a_queue_of_large_messages_is_worked_off_in_order_with_fewer_at_a_time(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("COFLOWS_ENVELOPE_VERSION", "1")  # One message each, and no order but that of the queue.
    for name, value in {"MAX_SEALED": 100_000, "MIN_PREFETCH": 2, "MAX_JOBS": 2, "START_OVER_PAUSE": 0.01}.items():
        monkeypatch.setattr(partitions, name, value)
    owner, caller = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.Recorder", "recorder")
    flow = get_flow_instance(caller, "recorder", user_id=owner.user_id)
    futures = [
        flow.get_reply_future(flow.package_input_message({"number": number, "text": "x" * 10_000}))
        for number in range(30)
    ]
    run_dispatch_worker_thread(owner)
    assert futures[-1].get_data(TIMEOUT) == {"seen": list(range(30))}
    assert "has large messages; 9 deliveries" in caplog.text


def test_a_refused_message_leaves_no_gap(users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has the partition next would wait for its number before what comes after it."""
    monkeypatch.setattr(sequencing, "PATIENCE", 1e9)
    owner, caller = users(2)
    worker = run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    flow = get_flow_instance(caller, "counter", user_id=owner.user_id)
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    route = route_to(flow.address)
    refused = Call(flow.get_instance_id(), failure={"text": []}, reply=caller.session.reply_to)
    message_id = new_message_id()
    waiting = caller.session.expect(message_id, owner.user_id)
    caller.session.send(route.queue, owner.user_id, message_id, refused, ordered=route.ordered).result(TIMEOUT)
    failure = waiting.result(TIMEOUT).failure
    assert failure is not None and failure["code"] == "serialization"
    orders = owner.read_keys("order:")
    stranger = seal_items(
        caller.identity,
        owner.user_id,
        int(time.time()) + 60,
        [Item(new_message_id(), encode(refused.to_dict()), "ab" * 8, 1)],
    )
    caller.broker.publish(route.queue, stranger)
    worker.stop()
    run_dispatch_worker_thread(owner)
    assert flow.ask({}, TIMEOUT) == {"count": 2}
    assert owner.read_keys("order:") == orders, "nobody who is refused begins one"
