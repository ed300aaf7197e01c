"""Turns that take long: their messages are parked, and neither hand-overs nor deaths of workers disturb them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from coflows import Client
from coflows.broker.topology import route_to
from coflows.errors import CallCancelledError
from coflows.futures import FlowFuture
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from tests.chaos.world import World

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(120)]
TIMEOUT = 60


@pytest.fixture
def made(made: World) -> World:
    made.environment["COFLOWS_PARK_AFTER"] = "0.2"
    return made


@pytest.fixture(params=["slow", "parallel", "async"])
def slow(request: pytest.FixtureRequest, made: World) -> str:
    name = "SlowAsync" if request.param == "async" else "Slow"
    serve_flow(made.alice, f"tests.chaos.flows.{name}", request.param, parallel_dispatch=request.param == "parallel")
    return str(request.param)


def ask(flow: FlowProxy, gate: Path, number: int) -> FlowFuture:
    return flow.get_reply_future(flow.package_input_message({"gate": str(gate), "number": number}))


def parked(cl: Client, count: int) -> None:
    """Wait until that many messages are parked."""
    changed = threading.Event()
    watch = cl.store.watch("parked:", lambda _keys: changed.set())
    try:
        while len(cl.read_keys("parked:")) != count:
            assert changed.wait(TIMEOUT), f"{count} messages were never parked"
            changed.clear()
    finally:
        watch.close()


def test_a_parked_message_leaves_the_queue_and_its_turn_survives_hand_overs(
    made: World, slow: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    made.worker()
    flow = get_flow_instance(made.carol, slow, made.alice.user_id)
    first = ask(flow, gate, 1)
    parked(made.alice, 1)
    others = [made.worker() for _ in range(2)]
    behind = [ask(flow, gate, number) for number in (2, 3)]
    if slow == "parallel":
        parked(made.alice, 3)
    gate.touch()
    answers = [future.get_data(TIMEOUT) for future in (first, *behind)]
    if slow == "slow":
        assert answers == [{"seen": [1]}, {"seen": [1, 2]}, {"seen": [1, 2, 3]}]
    assert sorted(gate.with_suffix(".runs").read_text().split()) == ["1", "2", "3"], "each began once"
    parked(made.alice, 0)
    assert made.alice.broker.get(route_to(flow.address).queue) is None
    assert not any(worker.deaths for worker in others)


def test_another_worker_adopts_what_a_dead_one_had_parked(made: World, slow: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    doomed = made.worker(forever=False)
    flow = get_flow_instance(made.carol, slow, made.alice.user_id)
    first = ask(flow, gate, 1)
    parked(made.alice, 1)
    behind = ask(flow, gate, 2)
    doomed.signal(signal.SIGKILL)
    made.worker()
    gate.touch()
    first.get_data(TIMEOUT)
    behind.get_data(TIMEOUT)
    assert sorted(gate.with_suffix(".runs").read_text().split())[:2] == ["1", "1"], "it was begun again"
    parked(made.alice, 0)
    if slow == "slow":
        assert ask(flow, gate, 3).get_data(TIMEOUT) == {"seen": [1, 2, 3]}


def test_a_frozen_worker_whose_message_was_adopted_changes_nothing(made: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    serve_flow(made.alice, "tests.chaos.flows.Slow", "slow")
    frozen = made.worker()
    flow = get_flow_instance(made.carol, "slow", made.alice.user_id)
    first = ask(flow, gate, 1)
    parked(made.alice, 1)
    frozen.signal(signal.SIGSTOP)
    made.worker()
    gate.touch()
    assert first.get_data(TIMEOUT) == {"seen": [1]}
    frozen.signal(signal.SIGCONT)
    assert ask(flow, gate, 2).get_data(TIMEOUT) == {"seen": [1, 2]}
    parked(made.alice, 0)


def test_a_cancel_reaches_a_parked_turn_wherever_its_partition_is(made: World, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    serve_flow(made.alice, "tests.chaos.flows.SlowAsync", "async")
    made.worker()
    flows = [get_flow_instance(made.carol, "async", made.alice.user_id) for _ in range(8)]
    futures = [ask(flow, gate, number) for number, flow in enumerate(flows)]
    parked(made.alice, 8)
    made.worker()
    for future in futures:
        future.cancel()
    parked(made.alice, 0)
    for future in futures:
        with pytest.raises(CallCancelledError):
            made.carol.reopen_future(future.key).get_data(TIMEOUT)
