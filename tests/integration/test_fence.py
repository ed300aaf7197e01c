"""What a worker has in hand when its partition, or its store, is not its own for a moment: nothing of it is applied
twice, out of order, or left behind."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

import pytest

from coflows import AtomicFlow, Client, FlowMessage
from coflows.broker.base import Broker
from coflows.dispatch.attempts import next_attempt
from coflows.dispatch.job import Job
from coflows.dispatch.lease import Lease
from coflows.dispatch.runner import Runner
from coflows.errors import StoreError, StoreLockedError
from coflows.model.layout import done_key
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from tests.chaos.running import until
from tests.services.rabbitmq import RabbitMQ
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60


class Gate(AtomicFlow):
    """Counts, and at its first turn waits until the test lets it go on."""

    default_config = {"name": "Gate", "description": "Waits."}
    runs: list[str] = []
    begun = threading.Event()
    go_on = threading.Event()

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.runs.append(input_message.message_id)
        self.begun.set()
        assert self.go_on.wait(TIMEOUT)
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"count": self.flow_state["count"]}


@pytest.fixture(autouse=True)
def closed_gate() -> None:
    Gate.runs.clear()
    Gate.begun.clear()
    Gate.go_on.clear()


def test_a_turn_under_a_lease_that_was_taken_over_is_run_again(users: Callable[..., list[Client]]) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Gate", "gate")
    flow = get_flow_instance(caller, "gate", user_id=owner.user_id)
    message = flow.package_input_message({})
    future = flow.get_reply_future(message)
    assert Gate.begun.wait(TIMEOUT)
    partition = flow.address.partition
    assert partition is not None
    Lease(owner.store, "another", flow.address.dispatch_point, partition).take()
    Gate.go_on.set()
    assert future.get_data(TIMEOUT) == {"count": 1}
    assert Gate.runs == [message.message_id] * 2, "it was committed under a lease that another worker had"
    assert owner.store.get(done_key(flow.address.flow_id, message.message_id)) is not None


def test_nothing_overtakes_a_turn_whose_commit_the_store_refused(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Gate", "gate")
    flow = get_flow_instance(caller, "gate", user_id=owner.user_id)
    futures = [flow.get_reply_future(flow.package_input_message({}))]
    assert Gate.begun.wait(TIMEOUT)
    commit, refused = owner.store.commit_async, threading.Event()

    def refuse_once(done: Callable[[int | StoreError], None], *arguments: Any, **options: Any) -> None:
        if refused.is_set():
            commit(done, *arguments, **options)
        else:
            refused.set()
            done(StoreLockedError("Locked by another process."))

    monkeypatch.setattr(owner.store, "commit_async", refuse_once)
    futures += [flow.get_reply_future(flow.package_input_message({})) for _ in range(3)]
    # The others are in line behind the first one: what came after them is answered.
    other = get_flow_instance(caller, "gate", user_id=owner.user_id)
    waiting = other.get_reply_future(other.package_input_message({}))
    Gate.go_on.set()
    assert waiting.get_data(TIMEOUT) == {"count": 1}
    assert [future.get_data(TIMEOUT)["count"] for future in futures] == [1, 2, 3, 4]
    assert refused.is_set()


class Holding(Broker):
    """Says at once that it has a message, and keeps it while ``hold`` is set."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.url = broker.url
        self.hold = True
        self._held: list[tuple[str, bytes]] = []

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        if not self.hold:
            return self._broker.publish_async(queue, body)
        self._held.append((queue, body))
        said: Future[None] = Future()
        said.set_result(None)
        return said

    def release(self) -> None:
        for queue, body in self._held:
            self._broker.publish(queue, body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    declare = consume = get = exists = delete = close = None  # type: ignore[assignment]


@pytest.mark.rabbitmq
def test_what_waits_for_an_earlier_message_outlives_a_partition_that_was_lent(
    users: Callable[..., list[Client]], rabbitmq_node: RabbitMQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, caller = users(2, rabbitmq_node.url)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Gate", "gate")
    Gate.go_on.set()
    flow = get_flow_instance(caller, "gate", user_id=owner.user_id)
    own = owner.proxy(flow.address)
    caller.session.expect("00" * 16, owner.user_id)
    broker = Holding(caller.broker)
    monkeypatch.setattr(caller.session, "_broker", broker)
    first = flow.get_reply_future(flow.package_input_message({}))
    broker.hold = False
    message = flow.package_input_message({})
    second = flow.get_reply_future(message)
    assert own.ask({}, TIMEOUT) == {"count": 1}, "the second one waits for the first"
    assert flow.address.partition is not None
    Lease(owner.store, "another", flow.address.dispatch_point, flow.address.partition).take()
    next_attempt(owner.store, flow.address.flow_id, message.message_id).begin(owner.store, None)
    rabbitmq_node.control("close_all_connections", "it comes again")
    counts = [own.ask({}, TIMEOUT)["count"]]
    broker.release()  # Its sender may have sent it again by now.
    counts += [future.get_data(TIMEOUT)["count"] for future in (first, second)]
    assert sorted(counts) == [2, 3, 4] and counts[1] < counts[2]
    assert owner.read_keys("attempts:") == [], "the other worker had begun it, and it is over"
    monkeypatch.undo()


class Gates(AtomicFlow):
    """Counts; a message may name an event that its turn waits for."""

    default_config = {"name": "Gates", "description": "Waits."}
    begun: dict[str, threading.Event] = defaultdict(threading.Event)
    go_on: dict[str, threading.Event] = defaultdict(threading.Event)

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        gate = input_message.data.get("gate")
        if gate is not None:
            self.begun[gate].set()
            assert self.go_on[gate].wait(TIMEOUT)
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"count": self.flow_state["count"]}


def test_a_turn_whose_batch_was_refused_before_it_ended_is_applied_once(
    users: Callable[..., list[Client]], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One batch has messages of two partitions; the first one's lease is gone, and the second one's turn still runs
    when the commit is refused."""
    owner, caller = users(2)
    run_dispatch_worker_thread(owner, concurrency=1)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Gates", "gates")
    flows: dict[int | None, FlowProxy] = {}
    while len(flows) < 3:
        flow = get_flow_instance(caller, "gates", user_id=owner.user_id)
        flows[flow.address.partition] = flow
    blocking, lost, kept = flows.values()
    assert [flow.ask({}, TIMEOUT)["count"] for flow in flows.values()] == [1, 1, 1], "they are in memory now"
    accept, accepted = Runner.accept, threading.Semaphore(0)

    def count(runner: Runner, jobs: Iterable[Job], **options: Any) -> None:
        jobs = list(jobs)
        accept(runner, jobs, **options)
        if jobs:
            accepted.release(len(jobs))

    monkeypatch.setattr(Runner, "accept", count)
    futures = [blocking.get_reply_future(blocking.package_input_message({"gate": "first"}))]
    assert Gates.begun["first"].wait(TIMEOUT)
    futures.append(lost.get_reply_future(lost.package_input_message({})))
    futures.append(kept.get_reply_future(kept.package_input_message({"gate": "second"})))
    for _ in futures:
        assert accepted.acquire(timeout=TIMEOUT)
    assert lost.address.partition is not None
    Lease(owner.store, "another", lost.address.dispatch_point, lost.address.partition).take()
    Gates.go_on["first"].set()
    assert Gates.begun["second"].wait(TIMEOUT)
    until(lambda: "Another worker took" in caplog.text)
    Gates.go_on["second"].set()
    assert [future.get_data(TIMEOUT)["count"] for future in futures] == [2, 2, 2]


def test_a_count_of_attempts_goes_with_its_message_though_the_broker_forgot_it(
    users: Callable[..., list[Client]],
) -> None:
    """RabbitMQ, killed, may deliver what it had delivered before as if it were new."""
    owner, caller = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Gates", "gates")
    flow = get_flow_instance(caller, "gates", user_id=owner.user_id)
    message = flow.package_input_message({})
    attempt = next_attempt(owner.store, flow.address.flow_id, message.message_id)
    attempt.begin(owner.store, None)
    run_dispatch_worker_thread(owner)
    assert flow.get_reply_future(message).get_data(TIMEOUT) == {"count": 1}
    assert owner.store.get(attempt.key) is None
