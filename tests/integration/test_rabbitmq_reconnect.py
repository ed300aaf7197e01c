"""Connections that break and nodes that go down lose nothing that was accepted and change no order."""

from __future__ import annotations

import logging
import secrets
import struct
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from coflows.broker import Delivery, QueueSpec
from coflows.broker.rabbitmq import RabbitMQBroker
from coflows.errors import BrokerUnavailableError
from tests.conformance.broker_contract import Inbox, numbers
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq
PATIENCE = 60.0
OpenBroker = Callable[..., RabbitMQBroker]


@pytest.fixture
def name() -> str:
    return f"test.{secrets.token_hex(8)}"


@pytest.fixture
def proxy(amqp_url: str) -> Iterator[Proxy]:
    proxy = Proxy(amqp_url)
    yield proxy
    proxy.close()


@pytest.fixture
def open_broker() -> Iterator[OpenBroker]:
    opened: list[RabbitMQBroker] = []

    def open_one(url: str, **options: float) -> RabbitMQBroker:
        opened.append(RabbitMQBroker(url, **options))
        return opened[-1]

    yield open_one
    for broker in opened:
        broker.close()


class Seen:
    """Collects bodies as they come first, acknowledges them, and tells when the last one is there."""

    def __init__(self, count: int) -> None:
        self.bodies: dict[bytes, None] = {}
        self.all = threading.Event()
        self._count = count

    def __call__(self, delivery: Delivery) -> None:
        self.bodies.setdefault(delivery.body)
        delivery.ack()
        if len(self.bodies) == self._count:
            self.all.set()

    def in_order(self) -> list[bytes]:
        assert self.all.wait(PATIENCE), f"only {len(self.bodies)} of {self._count} came"
        return list(self.bodies)


def test_what_was_not_confirmed_is_sent_again_in_order(open_broker: OpenBroker, proxy: Proxy, name: str) -> None:
    broker = open_broker(proxy.url)
    broker.declare(QueueSpec(name))
    proxy.mute()
    futures = [broker.publish_async(name, body) for body in numbers(500)]
    assert proxy.swallowed.wait(PATIENCE)  # The server has some of them, and its confirms are lost.
    assert not any(future.done() for future in futures)
    proxy.refuse()
    futures += [broker.publish_async(name, body) for body in numbers(500, start=500)]
    proxy.mend()
    for future in futures:
        future.result(PATIENCE)
    seen = Seen(1000)
    broker.consume(name, seen)
    assert seen.in_order() == numbers(1000)


def test_users_are_not_warned_that_they_have_no_accounts(
    open_broker: OpenBroker, proxy: Proxy, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        broker = open_broker(proxy.url)
        broker.declare(QueueSpec(f"{name}.{number}"))
    assert [one.getMessage() for one in caplog.records if one.name.startswith("pika")] == []
    seen = Seen(2)
    broker.consume(f"{name}.2", seen)
    broker.publish(f"{name}.2", b"0")
    proxy.cut()
    broker.publish(f"{name}.2", b"1")
    assert seen.in_order() == [b"0", b"1"]  # It is connected again, and has looked again.
    assert [text for one in caplog.records if "no exchange" in (text := one.getMessage())] == []
    filters = logging.getLogger("pika.channel").filters
    assert len(filters) == len(set(filters))


def test_consumers_go_on_after_every_cut(open_broker: OpenBroker, proxy: Proxy, name: str) -> None:
    broker = open_broker(proxy.url)
    broker.declare(QueueSpec(name))
    seen = Seen(3000)
    broker.consume(name, seen, prefetch=20)
    futures = []
    for start in range(0, 3000, 500):
        futures += [broker.publish_async(name, body) for body in numbers(500, start=start)]
        futures[-250].result(PATIENCE)
        proxy.cut()
    for future in futures:
        future.result(PATIENCE)
    assert seen.in_order() == numbers(3000)


def test_settling_what_came_before_the_cut_does_nothing(open_broker: OpenBroker, proxy: Proxy, name: str) -> None:
    broker = open_broker(proxy.url)
    broker.declare(QueueSpec(name))
    held = Inbox(ack=False)
    broker.consume(name, held)
    broker.publish(name, b"x")
    (before,) = held.take(1)
    proxy.cut()
    (after,) = held.take(1)
    assert (after.body, after.redelivered) == (b"x", True)
    before.ack()
    before.reject("stale")
    broker.publish(name, b"y")
    assert held.bodies(1) == [b"y"]
    after.requeue()
    assert held.bodies(1) == [b"x"]


def test_settling_twice_costs_no_other_delivery(open_broker: OpenBroker, amqp_url: str, name: str) -> None:
    """The server would close the channel over it, and deliver all that is unsettled there again."""
    broker = open_broker(amqp_url)
    broker.declare(QueueSpec(name))
    held = Inbox(ack=False)
    broker.consume(name, held)
    broker.publish(name, b"0")
    broker.publish(name, b"1")
    first, second = held.take(2)
    first.ack()
    first.ack()
    first.reject("no")
    second.ack()
    broker.publish(name, b"2")
    assert held.bodies(1) == [b"2"]
    broker.close()
    other = open_broker(amqp_url)
    assert [delivery.body for delivery in iter(lambda: other.get(name), None)] == [b"2"]


def test_what_is_asked_while_the_server_is_away_waits_for_it(open_broker: OpenBroker, proxy: Proxy, name: str) -> None:
    broker = open_broker(proxy.url)
    broker.declare(QueueSpec(name))
    broker.publish(name, b"x")
    proxy.refuse()
    with ThreadPoolExecutor(4) as pool:
        inbox = Inbox()
        asked = [
            pool.submit(broker.exists, name),
            pool.submit(broker.declare, QueueSpec(f"{name}.other")),
            pool.submit(broker.consume, name, inbox),
            pool.submit(broker.publish, name, b"y", PATIENCE),
        ]
        proxy.mend()
        assert asked[0].result(PATIENCE) is True
        for one in asked[1:]:
            one.result(PATIENCE)
    assert inbox.bodies(2) == [b"x", b"y"]


def test_queues_lost_while_away_are_made_again(open_broker: OpenBroker, proxy: Proxy, amqp_url: str, name: str) -> None:
    broker, other = open_broker(proxy.url), open_broker(amqp_url)
    dead = f"{name}.dead"
    broker.declare(QueueSpec(dead), QueueSpec(name, single_active=True, dead_letter_queue=dead))
    inbox = Inbox()
    broker.consume(name, inbox)
    proxy.refuse()
    other.delete(name)
    other.delete(dead)
    proxy.mend()
    pause = threading.Event()
    while not (other.exists(dead) and other.exists(name)):
        pause.wait(0.05)
    other.publish(name, b"x")
    assert inbox.bodies(1) == [b"x"]
    other.declare(QueueSpec(name, single_active=True, dead_letter_queue=dead))


def test_a_queue_deleted_under_its_consumer_is_made_again(open_broker: OpenBroker, amqp_url: str, name: str) -> None:
    broker, other = open_broker(amqp_url), open_broker(amqp_url)
    broker.declare(QueueSpec(name))
    inbox = Inbox()
    broker.consume(name, inbox)
    other.delete(name)
    pause = threading.Event()
    while not other.exists(name):
        pause.wait(0.05)
    other.publish(name, b"x")
    assert inbox.bodies(1) == [b"x"]


def test_messages_fail_when_the_server_stays_away_and_go_again_when_it_is_back(
    open_broker: OpenBroker, proxy: Proxy, name: str
) -> None:
    broker = open_broker(proxy.url, publish_deadline=1.0)
    broker.declare(QueueSpec(name))
    proxy.refuse()
    with pytest.raises(BrokerUnavailableError, match="away") as caught:
        broker.publish(name, b"x", PATIENCE)
    assert broker.url in caught.value.message
    proxy.mend()
    while True:
        try:
            broker.publish(name, b"y", PATIENCE)
        except BrokerUnavailableError:
            continue
        break
    delivery = broker.get(name)
    assert delivery is not None and delivery.body == b"y"


def test_closing_while_the_server_is_away_fails_what_is_pending(
    open_broker: OpenBroker, proxy: Proxy, name: str
) -> None:
    broker = open_broker(proxy.url)
    broker.declare(QueueSpec(name))
    broker.consume(name, Inbox())
    proxy.refuse()
    future = broker.publish_async(name, b"x")
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(broker.exists, name)
        broker.close()
        with pytest.raises(BrokerUnavailableError):
            future.result(PATIENCE)
        with pytest.raises(BrokerUnavailableError):
            asked.result(PATIENCE)


def test_a_consumer_that_closes_gives_back_before_the_next_one_gets_any(
    open_broker: OpenBroker, amqp_url: str, name: str
) -> None:
    first, second = open_broker(amqp_url), open_broker(amqp_url)
    first.declare(QueueSpec(name, single_active=True))
    for future in [first.publish_async(name, body) for body in numbers(200)]:
        future.result(PATIENCE)
    held, inbox = Inbox(ack=False), Inbox()
    consumer = first.consume(name, held, prefetch=10)
    held.take(10)
    second.consume(name, inbox, prefetch=10)
    consumer.close()
    assert inbox.bodies(200) == numbers(200)


def test_a_consumer_closes_in_one_step(open_broker: OpenBroker, proxy: Proxy, name: str) -> None:
    """When a single-active consumer is cancelled first, what arrives before the channel closes goes to the next one
    out of turn; classic queues of RabbitMQ 3.10 crash over it, and refuse what was being published."""
    broker = open_broker(proxy.url)
    broker.declare(QueueSpec(name, single_active=True))
    broker.publish(name, b"x")
    held = Inbox(ack=False)
    consumer = broker.consume(name, held)
    held.take(1)
    del proxy.said[:]
    consumer.close()
    cancel, close = struct.pack("!HH", 60, 30), struct.pack("!HH", 20, 40)
    assert close in proxy.said and cancel not in proxy.said


def test_connections_closed_by_the_server_are_made_again(
    open_broker: OpenBroker, rabbitmq_node: RabbitMQ, name: str
) -> None:
    broker = open_broker(rabbitmq_node.url)
    broker.declare(QueueSpec(name))
    seen = Seen(2000)
    broker.consume(name, seen)
    futures = [broker.publish_async(name, body) for body in numbers(1000)]
    rabbitmq_node.control("close_all_connections", "maintenance")
    futures += [broker.publish_async(name, body) for body in numbers(1000, start=1000)]
    for future in futures:
        future.result(PATIENCE)
    assert seen.in_order() == numbers(2000)


@pytest.mark.parametrize("how", ["halt", "kill"])
def test_a_node_that_restarts_loses_nothing(
    open_broker: OpenBroker, rabbitmq_node: RabbitMQ, name: str, how: str
) -> None:
    kept = f"{name}.kept"
    broker = open_broker(rabbitmq_node.url, publish_deadline=PATIENCE)
    broker.declare(QueueSpec(name), QueueSpec(kept))
    for future in [broker.publish_async(kept, body) for body in numbers(50)]:
        future.result(PATIENCE)
    seen = Seen(4000)
    broker.consume(name, seen)
    futures = [broker.publish_async(name, body) for body in numbers(3000)]
    futures[100].result(PATIENCE)
    getattr(rabbitmq_node, how)()
    try:
        futures += [broker.publish_async(name, body) for body in numbers(1000, start=3000)]
    finally:
        rabbitmq_node.start()
    for future in futures:
        future.result(PATIENCE)
    assert seen.in_order() == numbers(4000)
    inbox = Inbox()
    broker.consume(kept, inbox)
    assert inbox.bodies(50) == numbers(50)
