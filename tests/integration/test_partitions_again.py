"""A partition that its worker could not consume again is tried until it can: nobody else may have it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from coflows import Client
from coflows.broker.base import Consumer
from coflows.broker.topology import route_to
from coflows.dispatch import partitions
from coflows.dispatch.worker import DispatchWorker
from coflows.errors import BrokerUnavailableError
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from workers import run_get_instance_worker_thread

TIMEOUT = 30
ERRORS = [BrokerUnavailableError("It is away."), RuntimeError("A mistake."), BrokerUnavailableError("It is away.")]


class Served:
    """A worker in hand, and an instance; ``refusals`` are what the broker raises before it lets its queue be consumed
    again."""

    def __init__(self, owner: Client, caller: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        run_get_instance_worker_thread(owner)
        self.worker = DispatchWorker(owner, "coflows_dispatch")
        serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
        self.flow: FlowProxy = get_flow_instance(caller, "counter", user_id=owner.user_id)
        self.flow.ask({}, TIMEOUT)
        (self.feed,) = (one for one in self.worker._feeds if one.partition == self.flow.address.partition)
        self.refusals: list[Exception] = []
        self.tried = threading.Event()
        consume = owner.broker.consume

        def refusing(queue: str, *arguments: Any, **more: Any) -> Consumer:
            if queue == route_to(self.flow.address).queue and self.refusals:
                raise self.refusals.pop(0)
            return consume(queue, *arguments, **more)

        monkeypatch.setattr(owner.broker, "consume", refusing)
        monkeypatch.setattr(partitions, "START_OVER_PAUSE", 0.01)


@pytest.fixture
def served(users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch) -> Any:
    owner, caller = users(2)
    served = Served(owner, caller, monkeypatch)
    yield served
    served.worker.stop()


def test_one_that_was_to_start_over(served: Served) -> None:
    served.refusals = list(ERRORS)
    served.feed.start_over()
    assert served.flow.ask({}, TIMEOUT) == {"count": 2}
    assert served.refusals == []


@pytest.mark.parametrize("first", ERRORS[:2])
def test_one_that_was_to_be_handed_on(served: Served, first: Exception) -> None:
    """The other worker has gone by then."""
    served.refusals = [first, *ERRORS]
    number = served.feed.partition
    assert number is not None
    # Of two workers the first one, by name, has the even partitions.
    served.worker._rebalance([served.worker.name, "~" if number % 2 else "!"], True)
    assert served.flow.ask({}, TIMEOUT) == {"count": 2}
    assert served.refusals == []
