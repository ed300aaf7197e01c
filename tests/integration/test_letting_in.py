"""Threads of a worker that take messages in one after the other: what is in order stays so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from coflows import AtomicFlow, Client, FlowMessage
from coflows.broker.base import Delivery
from coflows.broker.topology import dispatch_queue
from coflows.dispatch.intake import Intake
from coflows.dispatch.job import Job, Source
from coflows.dispatch.lease import Lease
from coflows.errors import StoreError
from coflows.opened import Opened, Read
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60


class Diary(AtomicFlow):
    """Writes down what it gets."""

    default_config = {"name": "Diary", "description": "Writes down."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.flow_state["seen"] = [*self.flow_state.get("seen", ()), input_message.data["number"]]
        return {"seen": self.flow_state["seen"]}


def test_no_thread_overtakes_another_before_its_messages_are_let_in(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is held up with the first message was overtaken by another with the second."""
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Diary", "diary")
    flow = get_flow_instance(caller, "diary", user_id=owner.user_id)
    let_in, held_up, overtaken = Intake.let_in, threading.Event(), threading.Event()

    def slowly(self: Intake, ready: Iterable[Job], *, next: bool = False) -> None:
        jobs = list(ready)
        if jobs and not held_up.is_set():
            held_up.set()
            overtaken.wait(1)  # It is what must not happen.
        let_in(self, jobs, next=next)
        if jobs and held_up.is_set():
            overtaken.set()

    monkeypatch.setattr(Intake, "let_in", slowly)
    first = flow.get_reply_future(flow.package_input_message({"number": 1}))
    assert held_up.wait(TIMEOUT)
    second = flow.get_reply_future(flow.package_input_message({"number": 2}))
    assert first.get_data(TIMEOUT) == {"seen": [1]}
    assert second.get_data(TIMEOUT) == {"seen": [1, 2]}


@pytest.mark.parametrize("method", ["let_in", "_in_order"])
def test_what_fails_in_between_comes_again(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A mistake of ours costs time, and no message: the intake was dead from then on, without a word to anybody."""
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Diary", "diary")
    flow = get_flow_instance(caller, "diary", user_id=owner.user_id)
    right, failed = getattr(Intake, method), threading.Event()

    def wrong(self: Intake, jobs: Iterable[Job], **more: Any) -> Any:
        jobs = list(jobs)
        if jobs and not failed.is_set():
            failed.set()
            raise KeyError("a mistake")
        return right(self, jobs, **more)

    monkeypatch.setattr(Intake, method, wrong)
    futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in range(3)]
    assert [future.get_data(TIMEOUT)["seen"] for future in futures] == [[0], [0, 1], [0, 1, 2]]
    assert failed.is_set()


def test_when_the_store_fails_messages_of_all_partitions_come_again(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were opened together with the one at which it failed stayed with the worker, which had forgotten
    them."""
    owner, caller = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Diary", "diary")
    flows = [get_flow_instance(caller, "diary", user_id=owner.user_id) for _ in range(12)]
    take, taken_in, failed = Lease.take, Opened.next, threading.Event()
    opened: list[str] = []

    def once_all_are_opened(self: Opened) -> list[Read]:
        return taken_in(self) if len(opened) >= len(flows) else []

    def add(self: Opened, delivery: Delivery, source: Source) -> None:
        add_one(self, delivery, source)
        opened.append(source.name)

    def sometimes(self: Lease) -> int:
        if not failed.is_set():
            failed.set()
            raise StoreError("not now")
        return take(self)

    add_one = Opened.add
    monkeypatch.setattr("coflows.dispatch.intake.ROUND", 1)
    monkeypatch.setattr(Opened, "add", add)
    monkeypatch.setattr(Opened, "next", once_all_are_opened)
    monkeypatch.setattr(Lease, "take", sometimes)
    futures = [flow.get_reply_future(flow.package_input_message({"number": 1})) for flow in flows]
    with run_dispatch_worker_thread(owner):
        assert [future.get_data(TIMEOUT)["seen"] for future in futures] == [[1]] * len(flows)
    assert failed.is_set()
    queues = {dispatch_queue(owner.user_id, flow.address.dispatch_point, flow.address.partition).name for flow in flows}
    assert len(queues) > 1
    assert [queue for queue in queues if owner.broker.get(queue) is not None] == []
