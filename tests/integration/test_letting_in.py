"""Threads of a worker that take messages in one after the other: what is in order stays so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from coflows import AtomicFlow, Client, FlowMessage
from coflows.dispatch.intake import Intake
from coflows.dispatch.job import Job
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
