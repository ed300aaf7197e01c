"""Messages are read when it is their sender's turn: a flood of one is not read before what others sent after it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from coflows import Client
from coflows.broker.base import Delivery
from coflows.codec.wire import encode
from coflows.identity.sealing import MAX_ITEMS, Item, seal_items
from coflows.model.calls import Call
from coflows.model.messages import new_message_id
from coflows.opened import MAX_OPENED, MAX_READ, PIECE, ROUND_OF_MANY, Opened
from coflows.session import Incoming

FLOW = "00000000-0000-0000-0000-000000000000"


class Body(Delivery):
    """A delivery of nobody's."""

    def __init__(self, body: bytes) -> None:
        self.queue, self.body, self.redelivered = "queue", body, False
        self.ended: list[str] = []

    def ack(self) -> None:
        self.ended.append("acknowledged")

    def requeue(self) -> None:
        self.ended.append("given back")

    def reject(self, reason: str) -> None:
        self.ended.append(reason)


def value_of(incoming: Incoming) -> Any:
    return incoming.value


class Partition:
    """Of a source, what is asked of it here."""

    name, era, full = "queue", 0, False


def sent(sender: Client, owner: Client, count: int, text: str = "") -> Body:
    payload = encode(Call(FLOW, {"text": text}).to_dict())
    items = [Item(new_message_id(), payload) for _ in range(count)]
    return Body(seal_items(sender.identity, owner.user_id, int(time.time()) + 60, items))


def test_who_sends_little_does_not_wait_behind_who_sends_much(users: Callable[..., list[Client]]) -> None:
    owner, many, one = users(3)
    opened, source = Opened(owner.session, value_of), Partition()
    partition: Any = source
    for _ in range(3):
        opened.add(sent(many, owner, MAX_ITEMS), partition)
    opened.add(sent(one, owner, 1), partition)
    first = [incoming.sender for read in opened.next() for incoming, _ in read.messages]
    assert first.count(one.user_id) == 1
    assert len(first) <= ROUND_OF_MANY + PIECE, "nobody reads more than is taken in"


def test_what_is_read_at_a_time_has_bounds(users: Callable[..., list[Client]]) -> None:
    owner, sender = users(2)
    opened = Opened(owner.session, value_of)
    partition: Any = Partition()
    for _ in range(9):
        opened.add(sent(sender, owner, 1, "x" * (2**20 - 8192)), partition)
    assert opened.full, "what comes now stays sealed"
    while found := opened.next():
        assert sum(incoming.weight for read in found for incoming, _ in read.messages) <= MAX_READ + 2**20
    assert not opened.full and not opened.goes_on


def test_what_has_gone_back_is_not_read(users: Callable[..., list[Client]]) -> None:
    owner, sender = users(2)
    opened = Opened(owner.session, value_of)
    partition: Any = Partition()
    delivery = sent(sender, owner, 2 * PIECE)
    opened.add(delivery, partition)
    partition.era = 1
    assert opened.next() == [] and not opened.goes_on and delivery.ended == []


def test_what_is_for_a_full_queue_waits_and_holds_up_nothing_else(users: Callable[..., list[Client]]) -> None:
    owner, many, one = users(3)
    opened = Opened(owner.session, value_of)
    full: Any = Partition()
    other: Any = Partition()
    full.full = True
    opened.add(sent(many, owner, 2), full)
    opened.add(sent(many, owner, 1), other)
    opened.add(sent(many, owner, 3), full)
    opened.add(sent(one, owner, 1), other)
    assert [len(read.messages) for read in opened.next()] == [1, 1]
    assert not opened.goes_on and opened.next() == []
    full.full = False
    assert [len(read.messages) for read in opened.next()] == [2, 3], "in the order in which they came"
    assert not opened.goes_on


def test_a_full_queue_with_much_before_it_keeps_no_other_sealed(users: Callable[..., list[Client]]) -> None:
    owner, many = users(2)
    opened = Opened(owner.session, value_of)
    queue: Any = Partition()
    while not opened.full:
        opened.add(sent(many, owner, 1, "x" * (MAX_OPENED // 40)), queue)
    queue.full = True
    assert opened.next() == [] and not opened.full
    queue.full = False
    assert opened.next() and opened.goes_on
