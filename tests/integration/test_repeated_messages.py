"""Messages that come again while they, or later ones, are worked off."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from coflows import Client
from coflows.codec.wire import decode
from coflows.dispatch.intake import Intake
from coflows.dispatch.job import Job
from coflows.endpoints import read
from coflows.model.layout import ORDER
from coflows.serving import get_flow_instance, serve_flow
from tests import flow_classes
from tests.security.operator import TIMEOUT, Operator
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread


def replies(operator: Operator, caller: Client) -> list[str]:
    """The ids of the messages that were answered, as often as they were."""
    opened = [caller.session.open(body) for queue, body in list(operator.seen) if f".{caller.user_id}.session" in queue]
    return [decode(item.payload, max_bytes=2**20)["answers"] for one in opened for item in one.items]


def test_what_comes_again_does_not_take_the_order_back(users: Callable[..., list[Client]]) -> None:
    """Its reply is sent again after later ones were worked off. Whoever had the partition next waited half a minute
    for those, which did not come any more."""
    owner, caller = users(2)
    serve_flow(owner, "tests.flow_classes.Gated", "gated")
    operator = Operator(owner, caller)
    flow_classes.GATE.clear()
    with run_dispatch_worker_thread(owner), run_get_instance_worker_thread(owner):
        flow = get_flow_instance(caller, "gated", owner.user_id)
        first = flow.get_reply_future(flow.package_input_message({"number": 1}))
        ((queue, body),) = [one for one in operator.seen if ".dispatch." in one[0]]
        later = [flow.get_reply_future(flow.package_input_message({"number": n})) for n in (2, 3)]
        operator.inject(caller, [(queue, body)] * 3)
        last = flow.get_reply_future(flow.package_input_message({"number": 4}))
        flow_classes.GATE.set()
        assert [one.get_data(TIMEOUT)["through"] for one in (first, *later, last)] == [1, 2, 3, 4]
        deadline = time.monotonic() + TIMEOUT
        while replies(operator, caller).count(first.key.rpartition("/")[2]) < 2:
            assert time.monotonic() < deadline
    (entry,) = owner.store.scan(ORDER)
    assert read(entry.value)["passed"] == 4, entry.key


def test_what_comes_again_as_it_ends_is_worked_off_once_more_only(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was found to be under way, and that was over before it was put in order: it waited in its instance's lane
    twice, under two callers, and nothing came after it."""
    owner, caller = users(2)
    serve_flow(owner, "tests.flow_classes.Gated", "gated")
    operator, again = Operator(caller), threading.Event()
    flow_classes.GATE.clear()
    look_up, begin_again = Intake._look_up, Intake.begin_again

    def slowly(self: Intake, jobs: list[Job]) -> None:
        if any(job.twin for job in jobs):
            flow_classes.GATE.set()
            assert again.wait(TIMEOUT)
        look_up(self, jobs)

    def told(self: Intake, job: Job) -> None:
        begin_again(self, job)
        again.set()

    monkeypatch.setattr(Intake, "_look_up", slowly)
    monkeypatch.setattr(Intake, "begin_again", told)
    with run_dispatch_worker_thread(owner), run_get_instance_worker_thread(owner):
        flow = get_flow_instance(caller, "gated", owner.user_id)
        first = flow.get_reply_future(flow.package_input_message({"number": 1}))
        (message,) = [one for one in operator.seen if ".dispatch." in one[0]]
        operator.inject(caller, [message])
        assert first.get_data(TIMEOUT) == {"through": 1}
        assert flow.ask({"number": 2}, TIMEOUT) == {"through": 2}
