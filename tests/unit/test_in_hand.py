"""Messages that come again while they are worked off, and just as that is over: none is forgotten."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from coflows.dispatch.in_hand import InHand
from coflows.dispatch.job import Job
from coflows.model.calls import Call
from coflows.parcel import Parcel
from coflows.session import Incoming

ROUNDS = 60_000


class Counted:
    """A delivery that counts how often it was settled."""

    def __init__(self) -> None:
        self.settled = 0

    def ack(self) -> None:
        self.settled += 1

    def reject(self, reason: str) -> None:
        raise AssertionError(reason)


def job(delivery: Any) -> Job:
    source: Any = None
    incoming = Incoming("sender", "message", {}, b"")
    return Job(Parcel(delivery, 1), incoming, Call("flow"), source, ("sender", "flow", "message"))


def end(in_hand: InHand, one: Job | None) -> None:
    """As the runner does: out of hand first, then settled; then what came again meanwhile."""
    while one is not None:
        in_hand.leave(one)
        twin = one.settle()
        one = None if twin is None else in_hand.repeat(twin)


def test_one_that_comes_again_is_a_twin_until_the_first_is_over() -> None:
    in_hand, deliveries = InHand(), [Counted() for _ in range(4)]
    first, *twins = (job(delivery) for delivery in deliveries)
    assert in_hand.join(first)
    assert not any(in_hand.join(twin) for twin in twins)
    assert all(twin.twin for twin in twins) and in_hand.find(first.key) is first
    in_hand.leave(first)
    repeated = first.settle()
    assert repeated is not None and [one.settled for one in deliveries] == [1, 1, 1, 0]
    again = in_hand.repeat(repeated)
    assert again is not None and not again.twin and not again.fresh
    assert repeated.twin, "what is being put in order stays what it is"
    end(in_hand, again)
    assert [one.settled for one in deliveries] == [1, 1, 1, 1] and len(in_hand) == 0


def test_each_delivery_is_settled_once_however_threads_meet(request: pytest.FixtureRequest) -> None:
    before = sys.getswitchinterval()
    request.addfinalizer(lambda: sys.setswitchinterval(before))
    sys.setswitchinterval(1e-6)
    in_hand, deliveries = InHand(), [[Counted() for _ in range(ROUNDS)] for _ in range(2)]

    def run(own: list[Counted]) -> None:
        for delivery in own:
            one = job(delivery)
            if in_hand.join(one):
                end(in_hand, one)

    threads = [threading.Thread(target=run, args=(own,)) for own in deliveries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {one.settled for own in deliveries for one in own} == {1}
    assert len(in_hand) == 0
