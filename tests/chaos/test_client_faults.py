"""Callers that die and come back, peers that are away, and cancels that race with what they cancel."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coflows import connect
from coflows.errors import CallCancelledError
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance
from tests.chaos.nursery import Nursery, Say
from tests.chaos.world import Load, World, world
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]
TIMEOUT = 60
AWAY = float(os.environ.get("AWAY", "5"))
"""Seconds that a peer is away; ``make chaos-failpoints`` makes it a minute."""
CALLERS, CALLS = 6, 25
CANCELS = 1000


@pytest.fixture
def made(rabbitmq_node: RabbitMQ, tmp_path: Path) -> Iterator[World]:
    with world(rabbitmq_node, tmp_path) as made:
        yield made


@pytest.fixture
def nursery(made: World) -> Iterator[Nursery]:
    nursery = Nursery(made.environment)
    yield nursery
    nursery.close()


def ask(say: Say, owner: str, endpoint: str, calls: int, seconds: float) -> None:
    """The job of a caller: tells the key of each future once its message is accepted, and waits for none of them."""
    cl = connect("carol")
    flow = get_flow_instance(cl, endpoint, owner)
    for number in range(1, calls + 1):
        future = flow.get_reply_future(flow.package_input_message({"number": number, "seconds": seconds}))
        say(future.key)
    signal.pause()


def test_callers_killed_whose_futures_are_waited_for_by_another_process(made: World, nursery: Nursery) -> None:
    """Each dies while its calls are under way; what it was told is accepted is worked off once, in order."""
    made.worker()
    dice = random.Random(3)
    callers = []
    for _ in range(CALLERS):
        arguments = {"owner": made.alice.user_id, "endpoint": "witness", "calls": CALLS, "seconds": 0.02}
        caller = nursery.fork("tests.chaos.test_client_faults:ask", **arguments)
        caller.wait_for(dice.randint(1, CALLS))
        caller.stop()
        callers.append(caller)
    carol = made.open("carol")
    for caller in callers:
        answers = [carol.reopen_future(key).get_data(TIMEOUT) for key in caller.heard]
        assert answers == [{"number": number, "position": number} for number in range(1, len(answers) + 1)]
    assert sum(len(caller.heard) for caller in callers) < CALLERS * CALLS, "none of them died in the middle"


def test_a_peer_that_is_away_gets_its_messages_when_it_is_back(made: World, nursery: Nursery) -> None:
    """A user whose workers are all gone: callers wait, fetches too, and nothing is lost."""
    workers = [nursery.worker(user) for user in ("alice", "bob")]
    for worker in workers:
        worker.ready.wait(TIMEOUT)
    load = Load(made.witnesses(6, 2))
    load.send(3)
    load.wait()
    workers[0].stop()
    load.send(5)
    fetched: list[FlowProxy] = []
    patience = AWAY + TIMEOUT
    fetching = threading.Thread(
        target=lambda: fetched.append(get_flow_instance(made.carol, "witness", made.alice.user_id, timeout=patience))
    )
    fetching.start()
    time.sleep(AWAY)
    assert load.answered < load.count and not fetched
    nursery.worker("alice")
    fetching.join()
    assert fetched[0].ask({"number": 1}, TIMEOUT)["position"] == 1
    load.send(3)
    verdict = load.verdict()
    assert verdict.good, verdict


def test_cancel_against_completion(made: World) -> None:
    """Applied or cancelled, never both and never neither; those around it keep their order."""
    made.worker()
    flows = list(made.witnesses(4, 0).values())
    dice = random.Random(5)
    futures = []
    for number in range(CANCELS):
        flow = flows[number % len(flows)]
        future = flow.get_reply_future(flow.package_input_message({"number": number}))
        chance = dice.random()
        if chance < 0.3:
            future.cancel()
        elif chance < 0.6:
            timer = threading.Timer(dice.uniform(0.0, 0.02), future.cancel)
            timer.start()
        futures.append(future)
    applied: set[int] = set()
    for number, future in enumerate(futures):
        try:
            made.carol.reopen_future(future.key).get_data(TIMEOUT)
            applied.add(number)
        except CallCancelledError:
            continue
    assert 0 < len(applied) < CANCELS, "the race was always won by the same side"
    for index, flow in enumerate(flows):
        own = [number for number in sorted(applied) if number % len(flows) == index]
        assert flow.ask({"report": True}, TIMEOUT)["seen"] == own
