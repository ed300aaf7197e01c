"""The embedded broker between processes that are killed, share queues, and wait for a disk that fails."""

from __future__ import annotations

import os
import queue
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from coflows.broker import Broker, Delivery, QueueSpec, open_broker
from coflows.broker.embedded import EmbeddedBroker
from coflows.doorbell import Doorbell
from coflows.errors import BrokerError, BrokerUnavailableError, UnroutableError
from tests.conformance.broker_contract import PATIENCE, Inbox, numbers

QUEUE = "q"
OpenBroker = Callable[[], Broker]
# What it prints was in its hands; then it is killed, at some message that it had not acknowledged yet.
CONSUMER = """
import os, sys
from coflows.broker import open_broker
broker, left = open_broker(sys.argv[1]), int(sys.argv[2])
def work_off(delivery):
    global left
    os.write(1, b"%s %d\\n" % (delivery.body, delivery.redelivered))
    left -= 1
    if left < 0:
        os.kill(os.getpid(), 9)
    delivery.ack()
broker.consume("q", work_off, prefetch=10)
sys.stdin.read()
broker.close()
"""
PUBLISHER = """
import os, sys
from coflows.broker import open_broker
broker = open_broker(sys.argv[1])
for number in range(int(sys.argv[2])):
    broker.publish("q", b"%d" % number)
    os.write(1, b"%d\\n" % number)
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"embedded://{tmp_path}/broker"


@pytest.fixture
def connect(url: str) -> Iterator[OpenBroker]:
    opened: list[Broker] = []

    def one_more() -> Broker:
        opened.append(open_broker(url))
        return opened[-1]

    yield one_more
    for broker in opened:
        broker.close()


def start(program: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def printed_until_killed(process: subprocess.Popen[str]) -> list[list[str]]:
    with process:
        assert process.stdout is not None
        lines = [line.split() for line in process.stdout]
        assert process.wait(PATIENCE) == -9
    return lines


def settled(*futures: Future[None]) -> None:
    for future in futures:
        future.result(PATIENCE)


def test_consumers_killed_one_after_the_other_lose_and_skip_nothing(connect: OpenBroker, url: str) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE, single_active=True))
    settled(*[broker.publish_async(QUEUE, body) for body in numbers(300)])
    reached = 0
    for _ in range(4):
        lines = printed_until_killed(start(CONSUMER, url, "40"))
        seen = [int(body) for body, _ in lines]
        # Acknowledgements that were not written yet come again, in their old place, and say so.
        assert seen == list(range(seen[0], seen[0] + 41)) and seen[0] <= reached
        assert all(redelivered == "1" for body, redelivered in lines if int(body) <= reached > 0)
        reached = seen[-1]
    inbox = Inbox()
    broker.consume(QUEUE, inbox)
    begin = int(inbox.bodies(1)[0])
    assert begin <= reached
    assert inbox.bodies(299 - begin) == numbers(299 - begin, begin + 1)


def test_killed_consumers_of_a_shared_queue_lose_nothing(connect: OpenBroker, url: str) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE))
    settled(*[broker.publish_async(QUEUE, body) for body in numbers(300)])
    inbox = Inbox()
    processes = [start(CONSUMER, url, "20") for _ in range(3)]
    seen = {body.encode() for process in processes for body, _ in printed_until_killed(process)}
    broker.consume(QUEUE, inbox)
    while len(seen) < 300:
        seen |= set(inbox.bodies(1))


def test_a_message_that_kills_its_consumer_at_once_is_known_as_delivered_before(connect: OpenBroker, url: str) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE, single_active=True))
    consumer = start(CONSUMER, url, "0")
    broker.publish(QUEUE, b"poison")
    assert printed_until_killed(consumer) == [["poison", "0"]]
    assert printed_until_killed(start(CONSUMER, url, "0")) == [["poison", "1"]]


def test_what_was_confirmed_to_a_publisher_that_is_killed_is_there(connect: OpenBroker, url: str) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE))
    inbox = Inbox()
    broker.consume(QUEUE, inbox)
    confirmed = printed_until_killed(start(PUBLISHER, url, "50"))
    assert inbox.bodies(len(confirmed)) == numbers(50)


def test_the_next_in_line_takes_over_from_one_that_was_killed(connect: OpenBroker, url: str) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE, single_active=True))
    first = start(CONSUMER, url, "3")
    broker.publish(QUEUE, b"0")
    assert first.stdout is not None and first.stdout.readline() == "0 0\n"
    inbox = Inbox()
    broker.consume(QUEUE, inbox)
    settled(*[broker.publish_async(QUEUE, body) for body in numbers(9, 1)])
    assert printed_until_killed(first) == [["1", "0"], ["2", "0"], ["3", "0"]]
    bodies = [int(inbox.bodies(1)[0])]
    while bodies[-1] != 9:
        bodies.append(int(inbox.bodies(1)[0]))
    assert bodies == list(range(bodies[0], 10)) and bodies[0] <= 3


def test_one_who_joins_gets_nothing_that_another_has(connect: OpenBroker) -> None:
    first, second = connect(), connect()
    first.declare(QueueSpec(QUEUE))
    settled(*[first.publish_async(QUEUE, body) for body in numbers(10)])
    held, others = Inbox(ack=False), Inbox(ack=False)
    consumer = first.consume(QUEUE, held, prefetch=10)
    deliveries = held.take(10)
    second.consume(QUEUE, others, prefetch=100)
    settled(*[first.publish_async(QUEUE, body) for body in numbers(10, 10)])
    assert others.bodies(10) == numbers(10, 10)
    for delivery in deliveries[:5]:
        delivery.ack()
    deliveries[7].requeue()
    consumer.close()
    left = others.take(5)
    assert sorted(one.body for one in left) == numbers(5, 5) and all(one.redelivered for one in left)


def test_taking_one_message_leaves_a_consumer_its_own(connect: OpenBroker) -> None:
    first, second = connect(), connect()
    first.declare(QueueSpec(QUEUE))
    settled(*[first.publish_async(QUEUE, body) for body in numbers(5)])
    held = Inbox(ack=False)
    first.consume(QUEUE, held, prefetch=3)
    deliveries = held.take(3)
    one = second.get(QUEUE)
    assert one is not None and one.body == b"3"
    deliveries[0].ack()
    assert held.bodies(1) == [b"4"]
    one.requeue()
    deliveries[1].ack()
    (again,) = held.take(1)
    assert (again.body, again.redelivered) == (b"3", True)


def test_consumers_of_a_queue_that_is_deleted_go_on_when_it_is_made_again(connect: OpenBroker) -> None:
    broker, other = connect(), connect()
    broker.declare(QueueSpec(QUEUE))
    inbox = Inbox()
    broker.consume(QUEUE, inbox)
    other.publish(QUEUE, b"before")
    assert inbox.bodies(1) == [b"before"]
    broker.publish(QUEUE, b"of another")
    assert inbox.bodies(1) == [b"of another"]
    other.delete(QUEUE)
    with pytest.raises(UnroutableError):
        broker.publish(QUEUE, b"between")
    other.declare(QueueSpec(QUEUE))
    broker.publish(QUEUE, b"after")
    other.publish(QUEUE, b"after of another")
    assert inbox.bodies(2) == [b"after", b"after of another"]


def test_a_message_is_there_before_it_is_on_disk_and_confirmed_only_then(
    connect: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE))
    inbox = Inbox()
    broker.consume(QUEUE, inbox)
    sync, may_sync = os.fdatasync, threading.Event()

    def slow(file: int) -> None:
        assert may_sync.wait(PATIENCE)
        sync(file)

    monkeypatch.setattr(os, "fdatasync", slow)
    published = broker.publish_async(QUEUE, b"x")
    assert inbox.bodies(1) == [b"x"] and not published.done()
    may_sync.set()
    published.result(PATIENCE)


def test_a_disk_that_failed_once_confirms_nothing_any_more(
    connect: OpenBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE))

    def fail(_file: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(BrokerError, match="disk"):
            broker.publish(QUEUE, b"x")
    with pytest.raises(BrokerError, match="disk"):
        broker.publish(QUEUE, b"x")


def test_an_acknowledgement_outlives_a_transaction_that_failed(connect: OpenBroker) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE))
    answered: queue.SimpleQueue[Future[None]] = queue.SimpleQueue()

    def work_off(delivery: Delivery) -> None:
        assert isinstance(broker, EmbeddedBroker)
        file = broker._transactions.file.connection  # there is no other way to a full file
        (pages,) = file.execute("PRAGMA page_count").fetchone()
        file.execute(f"PRAGMA max_page_count = {pages}")
        delivery.ack()
        for _ in range(2):
            answered.put(broker.publish_async(QUEUE, b"x" * 2**20))

    consumer = broker.consume(QUEUE, work_off)
    broker.publish(QUEUE, b"0")
    for _ in range(2):
        with pytest.raises(BrokerError, match="full"):
            answered.get(timeout=PATIENCE).result(PATIENCE)
    consumer.close()
    assert connect().get(QUEUE) is None


def test_asking_whether_a_process_lives_does_not_wake_it(tmp_path: Path) -> None:
    mine, other = Doorbell(tmp_path), Doorbell(tmp_path)
    try:
        assert mine.alive(other.id) and not other.wait(0)
        assert mine.ring([other.id]) and other.wait(PATIENCE)
    finally:
        other.close()
    assert not mine.alive(other.id) and not mine.ring([other.id])
    mine.close()


def test_short_names_of_folders_that_are_gone_are_removed(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    short = tmp_path_factory.mktemp("s")
    monkeypatch.setattr("tempfile.tempdir", str(short))
    (short / "coflows-elsewhere").symlink_to(tmp_path / "nowhere")
    for name in ("first", "second"):
        folder = tmp_path / (name * 20)
        bell = Doorbell(folder)
        (link,) = [one for one in short.iterdir() if one.name.startswith(f"coflows-{os.getuid()}-")]
        assert link.readlink() == folder / "bells" and bell.ring([bell.id])
        bell.close()
        shutil.rmtree(folder)
    assert (short / "coflows-elsewhere").is_symlink(), "what is not ours stays"


def test_the_file_of_another_version_is_refused(connect: OpenBroker, tmp_path: Path) -> None:
    connect().close()
    file = sqlite3.connect(tmp_path / "broker" / "broker.db")
    file.execute("PRAGMA user_version = 99")
    file.close()
    with pytest.raises(BrokerUnavailableError, match="another version"):
        connect()


def test_a_callback_that_gives_back_and_publishes_keeps_its_consumer(connect: OpenBroker) -> None:
    broker = connect()
    broker.declare(QueueSpec(QUEUE, single_active=True), QueueSpec("echo"))
    echoed = Inbox()
    seen: set[bytes] = set()

    def work_off(delivery: Delivery) -> None:
        if delivery.body not in seen:
            seen.add(delivery.body)
            delivery.requeue()
        else:
            broker.publish_async("echo", delivery.body)
            delivery.ack()

    broker.consume("echo", echoed)
    broker.consume(QUEUE, work_off, prefetch=1)
    settled(*[broker.publish_async(QUEUE, body) for body in numbers(50)])
    assert echoed.bodies(50) == numbers(50)
