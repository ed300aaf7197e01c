"""Callers that die and come back, peers that are away, and cancels that race with what they cancel."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from coflows import Client, connect
from coflows.errors import CallCancelledError
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance
from tests.chaos.nursery import Brood, Say
from tests.chaos.world import Load, World

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]
TIMEOUT = 60
AWAY = float(os.environ.get("AWAY", "5"))
"""Seconds that a peer is away; ``make chaos-failpoints`` makes it a minute."""
CALLERS, CALLS = 6, 25
CANCELS = 1000


def ask(say: Say, owner: str, endpoint: str, calls: int, seconds: float) -> None:
    """The job of a caller: tells the key of each future once its message is accepted, and waits for none of them."""
    cl = connect("carol")
    flow = get_flow_instance(cl, endpoint, owner)
    for number in range(1, calls + 1):
        future = flow.get_reply_future(flow.package_input_message({"number": number, "seconds": seconds}))
        say(future.key)
    signal.pause()


def test_callers_killed_whose_futures_are_waited_for_by_another_process(made: World, nursery: Brood) -> None:
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


def test_a_peer_that_is_away_gets_its_messages_when_it_is_back(made: World, nursery: Brood) -> None:
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
    numbers = [range(index, CANCELS, len(flows)) for index in range(len(flows))]
    with ThreadPoolExecutor(len(flows)) as threads:
        applied = list(threads.map(partial(race, made.carol), flows, numbers))
    assert 0 < sum(map(len, applied)) < CANCELS, "the race was always won by the same side"
    for flow, own in zip(flows, applied, strict=True):
        assert flow.ask({"report": True}, TIMEOUT)["seen"] == own


def race(carol: Client, flow: FlowProxy, numbers: Sequence[int]) -> list[int]:
    """Send them in order and cancel some of them, at once or soon; gives those that were applied."""
    dice = random.Random(numbers[0])
    futures = {}
    for number in numbers:
        future = futures[number] = flow.get_reply_future(flow.package_input_message({"number": number}))
        chance = dice.random()
        if chance < 0.3:
            future.cancel()
        elif chance < 0.6:
            timer = threading.Timer(dice.uniform(0.0, 0.02), future.cancel)
            timer.start()
    applied = []
    for number, future in futures.items():
        with suppress(CallCancelledError):
            carol.reopen_future(future.key).get_data(TIMEOUT)
            applied.append(number)
    return applied
