"""How much of a queue is in hand at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coflows import Client
from coflows.broker.base import Delivery
from coflows.codec.wire import ELEMENT_BYTES
from coflows.dispatch.job import Job
from coflows.dispatch.partitions import MAX_BYTES, MAX_SEALED, MIN_PREFETCH, PartitionFeed, fitting
from coflows.model.calls import Call
from coflows.session import Incoming

FLOW = "00000000-0000-4000-8000-000000000000"


class Sealed(Delivery):
    """A delivery of so many bytes, of which nothing need be settled."""

    def __init__(self, size: int = 0) -> None:
        self.body = b"x" * size

    def ack(self) -> None: ...

    def requeue(self) -> None: ...

    def reject(self, reason: str) -> None: ...


class Taken:
    """The runner, as far as it is given deliveries."""

    def __init__(self) -> None:
        self.deliveries: list[object] = []
        self.went_on = 0

    def go_on(self) -> None:
        self.went_on += 1

    def deliver(self, delivery: object, source: object) -> None:
        self.deliveries.append(delivery)


@pytest.fixture
def taken() -> Taken:
    return Taken()


@pytest.fixture
def feed(users: Callable[..., list[Client]], taken: Any) -> PartitionFeed:
    return PartitionFeed(users(1)[0], "point", 0, taken, "worker")


def test_what_is_opened_is_weighed_as_it_lies_in_memory(feed: PartitionFeed, taken: Taken) -> None:
    source: Any = feed
    many = MAX_BYTES // ELEMENT_BYTES + 1
    job = Job(None, Incoming("a" * 52, "0" * 32, {}, b"", elements=many), Call(FLOW), source, ("a", FLOW, "0"))
    first, later = Sealed(), Sealed()
    for one in (first, later):
        feed._on_delivery(one)
    assert not feed.defer(first)
    feed.track([job])
    assert feed.defer(later) and feed.full and taken.went_on == 0
    feed.settled([job])
    assert not feed.full and taken.went_on == 1
    assert taken.deliveries == [first, later, later] and not feed.defer(later)


def test_what_an_earlier_consumer_was_given_is_not_opened(feed: PartitionFeed) -> None:
    """It comes again, in its order."""
    assert feed.defer(Sealed())


def test_fewer_large_deliveries_are_taken_at_a_time() -> None:
    assert fitting(1000, 100) == fitting(1000, 0) == 1000
    assert fitting(1000, 2**20) * 2**20 <= MAX_SEALED
    assert fitting(1000, 2**26) == MIN_PREFETCH and fitting(5, 2**26) == 5


def test_what_comes_sealed_is_counted_until_it_is_opened(feed: PartitionFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    begun_again: list[int] = []
    monkeypatch.setattr(feed, "start_over", lambda: begun_again.append(feed._prefetch))
    for one in (large := [Sealed(2**20) for _ in range(MAX_SEALED // 2**20 + 2)]):
        feed._on_delivery(one)
        assert not feed.defer(one)
    assert begun_again == []
    for one in large:
        feed._on_delivery(one)
    assert begun_again == [MAX_SEALED // 2**20]
