"""What every broker must do. A subclass gives ``open_broker``: a fixture that opens one more object on one broker."""

from __future__ import annotations

import queue
import secrets
import threading
from collections.abc import Callable
from typing import Any

import pytest

from coflows.broker import Broker, Delivery, QueueSpec
from coflows.errors import BrokerUnavailableError, QueueMismatchError, UnroutableError

PATIENCE = 30.0
OpenBroker = Callable[[], Broker]


class Inbox:
    """Collects deliveries; acknowledges them unless told not to."""

    def __init__(self, *, ack: bool = True) -> None:
        self._ack = ack
        self._queue: queue.Queue[Delivery] = queue.Queue()

    def __call__(self, delivery: Delivery) -> None:
        if self._ack:
            delivery.ack()
        self._queue.put(delivery)

    def take(self, count: int) -> list[Delivery]:
        return [self._queue.get(timeout=PATIENCE) for _ in range(count)]

    def bodies(self, count: int) -> list[bytes]:
        return [delivery.body for delivery in self.take(count)]

    def empty(self) -> bool:
        return self._queue.empty()


def numbers(count: int, start: int = 0) -> list[bytes]:
    return [b"%d" % number for number in range(start, start + count)]


class BrokerContract:
    @pytest.fixture
    def broker(self, open_broker: OpenBroker) -> Broker:
        return open_broker()

    @pytest.fixture
    def name(self) -> str:
        return f"test.{secrets.token_hex(8)}"

    def fill(self, broker: Broker, name: str, bodies: list[bytes], **properties: Any) -> None:
        broker.declare(QueueSpec(name, **properties))
        for future in [broker.publish_async(name, body) for body in bodies]:
            future.result(PATIENCE)

    def test_messages_come_in_the_order_published(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(2000))
        inbox = Inbox()
        broker.consume(name, inbox, prefetch=50)
        assert inbox.bodies(2000) == numbers(2000)

    @pytest.mark.parametrize("body", [b"", bytes(range(256)), b"x" * 2**20], ids=["empty", "all bytes", "1 MiB"])
    def test_bodies_come_out_as_they_went_in(self, broker: Broker, name: str, body: bytes) -> None:
        self.fill(broker, name, [body])
        delivery = broker.get(name)
        assert delivery is not None and delivery.body == body and not delivery.redelivered

    def test_messages_outlive_the_object_that_published_them(self, open_broker: OpenBroker, name: str) -> None:
        first = open_broker()
        self.fill(first, name, numbers(10))
        first.close()
        inbox = Inbox()
        open_broker().consume(name, inbox)
        assert inbox.bodies(10) == numbers(10)

    def test_a_message_that_was_acknowledged_never_comes_again(self, open_broker: OpenBroker, name: str) -> None:
        first = open_broker()
        self.fill(first, name, numbers(2))
        delivery = first.get(name)
        assert delivery is not None
        delivery.ack()
        first.close()
        second = open_broker()
        left = second.get(name)
        assert left is not None and left.body == b"1" and second.get(name) is None

    def test_a_requeued_message_comes_again_in_its_old_place(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(3))
        first = broker.get(name)
        assert first is not None
        first.requeue()
        inbox = Inbox()
        broker.consume(name, inbox)
        again = inbox.take(3)
        assert [delivery.body for delivery in again] == numbers(3)
        assert [delivery.redelivered for delivery in again] == [True, False, False]

    @pytest.mark.parametrize("what", ["consumer", "broker"])
    def test_what_is_unsettled_comes_back_in_order(self, open_broker: OpenBroker, name: str, what: str) -> None:
        first, second = open_broker(), open_broker()
        self.fill(first, name, numbers(20))
        held = Inbox(ack=False)
        consumer = first.consume(name, held)
        held.take(20)
        (consumer if what == "consumer" else first).close()
        inbox = Inbox()
        second.consume(name, inbox)
        assert inbox.bodies(20) == numbers(20)

    def test_settling_after_the_consumer_closed_does_nothing(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(1))
        held = Inbox(ack=False)
        consumer = broker.consume(name, held)
        (delivery,) = held.take(1)
        consumer.close()
        delivery.ack()
        inbox = Inbox()
        broker.consume(name, inbox)
        assert inbox.bodies(1) == numbers(1)

    def test_settling_twice_is_settling_once(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(2))
        delivery = broker.get(name)
        assert delivery is not None
        delivery.ack()
        delivery.requeue()
        delivery.reject("no")
        following = broker.get(name)
        assert following is not None and following.body == b"1"

    def test_no_more_than_the_prefetch_are_unsettled(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(10))
        held = Inbox(ack=False)
        broker.consume(name, held, prefetch=3)
        first = held.take(3)
        broker.publish(name, b"10")
        assert held.empty()
        first[0].ack()
        assert held.bodies(1) == [b"3"]

    def test_two_consumers_share_a_queue(self, open_broker: OpenBroker, name: str) -> None:
        broker, other = open_broker(), open_broker()
        broker.declare(QueueSpec(name))
        mine, others = Inbox(ack=False), Inbox(ack=False)
        broker.consume(name, mine, prefetch=10)
        other.consume(name, others, prefetch=10)
        self.fill(broker, name, numbers(20))
        assert sorted(mine.bodies(10) + others.bodies(10)) == sorted(numbers(20))

    def test_of_a_single_active_queue_the_first_consumer_gets_all(self, open_broker: OpenBroker, name: str) -> None:
        broker, other = open_broker(), open_broker()
        broker.declare(QueueSpec(name, single_active=True))
        first, second = Inbox(ack=False), Inbox()
        consumer = broker.consume(name, first, prefetch=100)
        other.consume(name, second)
        self.fill(broker, name, numbers(10), single_active=True)
        held = first.take(10)
        assert second.empty()
        for delivery in held[:4]:
            delivery.ack()
        consumer.close()
        assert second.bodies(6) == numbers(6, start=4)
        self.fill(broker, name, numbers(3, start=10), single_active=True)
        assert second.bodies(3) == numbers(3, start=10) and first.empty()

    def test_a_consumer_that_lines_up_again_stands_behind_the_others(self, open_broker: OpenBroker, name: str) -> None:
        broker, other = open_broker(), open_broker()
        broker.declare(QueueSpec(name, single_active=True))
        first, second, again = Inbox(), Inbox(), Inbox()
        consumer = broker.consume(name, first)
        other.consume(name, second)
        consumer.close()
        broker.consume(name, again)
        self.fill(broker, name, numbers(5), single_active=True)
        assert second.bodies(5) == numbers(5)
        assert first.empty() and again.empty()

    def test_a_message_without_a_queue_is_told_and_hurts_no_other(self, broker: Broker, name: str) -> None:
        broker.declare(QueueSpec(name))
        before, lost, after = (broker.publish_async(queue, b"x") for queue in (name, f"{name}.none", name))
        before.result(PATIENCE)
        after.result(PATIENCE)
        with pytest.raises(UnroutableError, match=f"{name}.none"):
            lost.result(PATIENCE)

    def test_declaring_again_is_allowed_only_alike(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(1))
        broker.declare(QueueSpec(name))
        with pytest.raises(QueueMismatchError, match=name) as caught:
            broker.declare(QueueSpec(name, single_active=True))
        assert "elete" in caught.value.hint
        assert broker.get(name) is not None

    def test_a_queue_expires_when_nobody_uses_it(self, broker: Broker, name: str) -> None:
        broker.declare(QueueSpec(name, expires=0.5))
        assert broker.exists(name)
        gone = threading.Event()
        for _ in range(20):
            gone.wait(1.5)  # To RabbitMQ asking for a queue is using it: ask less often than it expires.
            if not broker.exists(name):
                gone.set()
                break
        assert gone.is_set()

    def test_a_rejected_message_waits_with_the_dead_letters(self, broker: Broker, name: str) -> None:
        dead = f"{name}.dead"
        broker.declare(QueueSpec(dead))
        self.fill(broker, name, numbers(1), dead_letter_queue=dead)
        letters = Inbox(ack=False)
        broker.consume(name, lambda delivery: delivery.reject("it is cursed"))
        broker.consume(dead, letters)
        (letter,) = letters.take(1)
        assert (letter.body, letter.origin, letter.reason) == (b"0", name, "it is cursed")

    def test_a_dead_letter_can_be_replayed(self, broker: Broker, name: str) -> None:
        dead = f"{name}.dead"
        broker.declare(QueueSpec(dead))
        self.fill(broker, name, numbers(1), dead_letter_queue=dead)
        letters, replayed = Inbox(ack=False), Inbox()
        consumer = broker.consume(name, lambda delivery: delivery.reject("no"))
        broker.consume(dead, letters)
        (letter,) = letters.take(1)
        consumer.close()
        assert letter.origin is not None
        broker.publish(letter.origin, letter.body)
        letter.ack()
        broker.consume(name, replayed)
        assert replayed.bodies(1) == [b"0"]

    def test_rejecting_where_there_are_no_dead_letters_drops(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(2))
        delivery = broker.get(name)
        assert delivery is not None
        delivery.reject("no")
        inbox = Inbox()
        broker.consume(name, inbox)
        assert inbox.bodies(1) == [b"1"]

    def test_get_tells_empty_from_missing(self, broker: Broker, name: str) -> None:
        with pytest.raises(UnroutableError):
            broker.get(name)
        broker.declare(QueueSpec(name))
        assert broker.get(name) is None

    def test_consuming_a_missing_queue_is_told(self, broker: Broker, name: str) -> None:
        with pytest.raises(UnroutableError, match=name):
            broker.consume(name, Inbox())

    def test_deleting_a_queue_deletes_what_it_holds(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(3))
        broker.delete(name)
        assert not broker.exists(name)
        broker.delete(name)
        broker.declare(QueueSpec(name))
        assert broker.get(name) is None

    def test_an_exception_in_the_callback_gives_the_message_back(self, broker: Broker, name: str) -> None:
        self.fill(broker, name, numbers(1))
        inbox = Inbox()
        failed: list[bool] = []

        def callback(delivery: Delivery) -> None:
            failed.append(delivery.redelivered)
            if not delivery.redelivered:
                raise RuntimeError("the first time it fails")
            inbox(delivery)

        broker.consume(name, callback)
        assert inbox.bodies(1) == [b"0"] and failed == [False, True]

    def test_a_callback_may_publish_and_settle(self, broker: Broker, name: str) -> None:
        replies = f"{name}.replies"
        broker.declare(QueueSpec(name), QueueSpec(replies))
        inbox = Inbox()

        def echo(delivery: Delivery) -> None:
            broker.publish_async(replies, delivery.body).add_done_callback(lambda _future: delivery.ack())

        broker.consume(name, echo)
        broker.consume(replies, inbox)
        self.fill(broker, name, numbers(100))
        assert inbox.bodies(100) == numbers(100)

    def test_threads_that_publish_at_once_keep_each_their_order(self, broker: Broker, name: str) -> None:
        broker.declare(QueueSpec(name))

        def publish(thread: int) -> None:
            for future in [broker.publish_async(name, b"%d %d" % (thread, number)) for number in range(100)]:
                future.result(PATIENCE)

        threads = [threading.Thread(target=publish, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        inbox = Inbox()
        broker.consume(name, inbox)
        bodies = inbox.bodies(800)
        for thread_number in range(8):
            own = [body for body in bodies if body.startswith(b"%d " % thread_number)]
            assert own == [b"%d %d" % (thread_number, number) for number in range(100)]

    def test_a_closed_object_says_so(self, open_broker: OpenBroker, name: str) -> None:
        broker = open_broker()
        broker.declare(QueueSpec(name))
        broker.close()
        broker.close()
        with pytest.raises(BrokerUnavailableError):
            broker.publish(name, b"x")
