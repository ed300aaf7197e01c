"""Instances whose turns came to be in one batch do not wait for each other's turns once their own are written."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coflows import AtomicFlow, Client, CompositeFlow, FlowFuture, FlowMessage
from coflows.dispatch.batch import Batch
from coflows.dispatch.draft import Draft
from coflows.dispatch.job import Job
from coflows.dispatch.runner import Runner
from coflows.dispatch.work import Work
from coflows.dispatch.writer import Writer
from coflows.errors import InstanceNotFoundError
from coflows.failpoints import Failpoints
from coflows.model.calls import Call
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from coflows.session import Incoming
from tests.flow_classes import config
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
BEFORE = [threading.Event(), threading.Event()]
"""Held while messages gather: what a worker has in hand before."""
BEGUN, DURING = threading.Semaphore(0), threading.Event()
Gather = Callable[..., list[FlowFuture]]


class First(AtomicFlow):
    default_config = config("First")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        BEGUN.release()
        BEFORE[input_message.data["number"]].wait(TIMEOUT)
        return {}


class Long(AtomicFlow):
    default_config = config("Long")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        DURING.wait(TIMEOUT)
        return {}


class Asking(CompositeFlow):
    default_config = config("Asking", subflows_config={"next": {"user_id": "local", "flow_endpoint": "shared"}})

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return self.subflows["next"].ask(input_message.data, TIMEOUT)


class AskingByThreads(CompositeFlow):
    """Asks two at once, each from a thread of its own."""

    default_config = config(
        "AskingByThreads",
        subflows_config={name: {"user_id": "local", "flow_endpoint": name} for name in ("shared", "long")},
    )

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        with ThreadPoolExecutor() as threads:
            long, shared = (
                threads.submit(self.subflows[name].ask, {"number": 1}, TIMEOUT) for name in ("long", "shared")
            )
            shared.add_done_callback(lambda _: DURING.set())
            return {**shared.result(), **long.result()}


class Mixed(AtomicFlow):
    """Its first turn is over at once, its second goes on on the event loop while the first is being written."""

    default_config = config("Mixed")
    writing, ran = threading.Event(), threading.Event()

    def run(self, input_message: FlowMessage) -> Any:
        self.flow_state["turns"] = self.flow_state.get("turns", 0) + 1
        if input_message.data["number"] == 0:
            return {}
        assert Mixed.writing.wait(TIMEOUT)
        return self.go_on()

    async def go_on(self) -> dict[str, Any]:
        Mixed.ran.set()
        return {"turns": self.flow_state["turns"]}


class Vanishing(AtomicFlow):
    """Deletes its own instance meanwhile, so that what is committed with its turn is refused."""

    default_config = config("Vanishing")
    delete: Callable[[str], None]

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        Vanishing.delete(self.get_instance_id())
        return {}


@pytest.fixture
def cl(users: Callable[..., list[Client]]) -> Client:
    (cl,) = users(1)
    run_get_instance_worker_thread(cl)
    serve_flow(cl, "tests.flow_classes.Recorder", "shared", singleton=True)
    for flow_class in (First, Long, Asking, AskingByThreads, Mixed, Vanishing):
        serve_flow(cl, f"{__name__}.{flow_class.__name__}", flow_class.__name__.lower())
    return cl


@pytest.fixture
def gather(monkeypatch: pytest.MonkeyPatch, cl: Client) -> Iterator[Gather]:
    """Sends one message each to instances, so that a worker begins them in one batch."""
    accept, waits = Runner.accept, threading.Semaphore(0)

    def accepted(runner: Runner, jobs: Iterable[Job], *, next: bool = False) -> None:
        jobs = list(jobs)
        accept(runner, jobs, next=next)
        for _ in jobs:
            waits.release()

    monkeypatch.setattr(Runner, "accept", accepted)
    monkeypatch.setattr("coflows.dispatch.runner.BUDGET", TIMEOUT)
    for event in (*BEFORE, DURING):
        event.clear()

    def send(*flows: FlowProxy, concurrency: int = 1) -> list[FlowFuture]:
        run_dispatch_worker_thread(cl, concurrency=concurrency)
        for number in range(concurrency):
            first = get_flow_instance(cl, "first")
            first.get_reply_future(first.package_input_message({"number": number}))
            assert BEGUN.acquire(timeout=TIMEOUT) and waits.acquire(timeout=TIMEOUT)
        futures = []
        for number, flow in enumerate(flows):
            futures.append(flow.get_reply_future(flow.package_input_message({"number": number})))
            assert waits.acquire(timeout=TIMEOUT)
        BEFORE[concurrency - 1].set()
        return futures

    yield send
    for event in (*BEFORE, DURING):
        event.set()


def test_a_turn_may_ask_an_instance_whose_turn_came_before_it_in_its_batch(cl: Client, gather: Gather) -> None:
    shared, asking = get_flow_instance(cl, "shared"), get_flow_instance(cl, "asking")
    told, asked = gather(shared, asking)
    assert told.get_data(TIMEOUT) == {"seen": [0]}
    assert asked.get_data(TIMEOUT) == {"seen": [0, 1]}


def test_also_when_what_came_before_it_is_refused_and_begun_again(cl: Client, gather: Gather) -> None:
    shared, asking, vanishing = (get_flow_instance(cl, name) for name in ("shared", "asking", "vanishing"))
    Vanishing.delete = lambda flow_id: cl.store.commit({}, deletes=[f"instance_metadata:{flow_id}"])
    gone, told, asked = gather(vanishing, shared, asking)
    assert told.get_data(TIMEOUT) == {"seen": [1]}
    assert asked.get_data(TIMEOUT) == {"seen": [1, 2]}
    with pytest.raises(InstanceNotFoundError):
        gone.get_data(TIMEOUT)


def test_a_long_turn_keeps_no_instance_waiting_whose_turn_came_before_it(cl: Client, gather: Gather) -> None:
    shared = get_flow_instance(cl, "shared")
    told, long = gather(shared, get_flow_instance(cl, "long"), concurrency=2)
    assert told.get_data(TIMEOUT) == {"seen": [0]}
    BEFORE[0].set()
    assert shared.ask({"number": 1}, TIMEOUT) == {"seen": [0, 1]} and not long.done()
    DURING.set()
    assert long.get_data(TIMEOUT) == {}


def test_a_coroutine_begins_when_what_its_instance_did_before_is_decided(
    cl: Client, gather: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It commits by itself: what it was built on must not be begun again after it."""
    decided, waits, wait = threading.Event(), threading.Event(), Draft.wait

    def reach(_self: Failpoints, name: str) -> None:
        if name == "before_commit" and "flush" in threading.current_thread().name:
            Mixed.writing.set()
            assert decided.wait(TIMEOUT)

    def waiting(draft: Draft) -> None:
        if "turn" in threading.current_thread().name:
            waits.set()
        wait(draft)

    monkeypatch.setattr(Failpoints, "reach", reach)
    monkeypatch.setattr(Draft, "wait", waiting)
    mixed = get_flow_instance(cl, "mixed")
    first, second = gather(mixed, mixed)
    try:
        assert waits.wait(TIMEOUT) and not Mixed.ran.is_set()
    finally:
        decided.set()
    assert first.get_data(TIMEOUT) == {}
    assert second.get_data(TIMEOUT) == {"turns": 2}


def test_what_is_built_on_a_refused_commit_keeps_nobody_waiting_who_writes_too() -> None:
    draft = (work := Work(Batch())).draft
    runner: Any = None
    store: Any = None
    draft.wrote(refused=True)
    source: Any = None
    job = Job(None, Incoming("a" * 52, "1" * 32, {}, b""), Call(""), source, ("", "", ""))
    draft.content().add(job, [], {}, (), {})
    Writer(store, runner, Failpoints("")).write(work)
    assert work.again == [job] and draft.take() is None


def test_two_threads_of_a_turn_may_wait_at_once(cl: Client) -> None:
    """The first that has its reply goes on without the other, and no slot is lost."""
    for event in BEFORE:
        event.set()
    DURING.clear()
    run_dispatch_worker_thread(cl, concurrency=2)
    asking = get_flow_instance(cl, "askingbythreads")
    for number in range(3):
        DURING.clear()
        assert asking.ask({}, TIMEOUT)["seen"] == [1] * (number + 1)
