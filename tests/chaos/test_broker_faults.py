"""Faults of the broker, under load: killed, frozen, full, out of memory or disk, its queues taken away or foreign."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pika
import pika.exceptions
import pytest

from coflows.broker.base import QueueSpec
from coflows.broker.rabbitmq import RabbitMQBroker
from coflows.broker.topology import dispatch_queues
from coflows.dead_letters import list_dead_letters
from coflows.errors import BrokerError, QueueMismatchError
from coflows.serving import get_flow_instance, serve_flow
from tests.chaos import faults
from tests.chaos.running import StubbornLoad, running, until
from tests.chaos.soak import PersistentLoad
from tests.chaos.world import ROOT, Load, World
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(500)]


@pytest.mark.timeout(900)
def test_broker_killed_ten_times(made: World) -> None:
    for user in ("alice", "alice", "bob"):
        made.worker(user)
    load = PersistentLoad(made.witnesses(8, 2))
    dice = random.Random(9)
    with running(load):
        for _ in range(10):
            # From each flow: two outages may be one to a relay, and after a minute of it he is told an error.
            before = load.answered_each
            until(lambda: all(n > m for n, m in zip(load.answered_each, before, strict=True)))  # noqa: B023
            time.sleep(dice.uniform(0.0, 1.0))
            faults.kill_broker(made, dice)
    verdict = load.verdict()
    assert verdict.good, verdict
    assert list_dead_letters(made.alice) == []


def test_broker_restarted_in_good_order(made: World) -> None:
    for user in ("alice", "bob"):
        made.worker(user)
    load = PersistentLoad(made.witnesses(8, 2))
    with running(load):
        faults.restart_broker(made, random.Random(1))
    verdict = load.verdict()
    assert verdict.good, verdict


def test_broker_frozen_for_longer_than_a_heartbeat(made: World) -> None:
    """20 s; the connections, whose heartbeats are a second here, are given up meanwhile and made again."""
    hasty = f"{made.node.url}?heartbeat=1"
    made.worker(broker_url=hasty)
    made.worker()
    loads = [Load(made.witnesses(4, 0, made.open("carol", hasty))), Load(made.witnesses(4, 0))]
    with running(*loads):
        pid = int(made.node.evaluate("list_to_integer(os:getpid())"))
        os.kill(pid, signal.SIGSTOP)
        time.sleep(20)
        os.kill(pid, signal.SIGCONT)
        answered = [load.answered for load in loads]
        until(lambda: all(load.answered > n + 20 for load, n in zip(loads, answered, strict=True)))
    for load in loads:
        verdict = load.verdict()
        assert verdict.good, verdict


def test_queues_deleted_under_load_and_consumers_cancelled(made: World) -> None:
    """The server cancels the consumers; the workers make the queues again. Who is told that his message was not kept
    sends it again; who waits for a reply that does not come has his session do so."""
    made.worker()
    made.worker()
    load = StubbornLoad(made.witnesses(8, 0))
    with running(load):
        for _ in range(5):
            faults.delete_queues(made)
            answered = load.answered
            until(lambda: load.answered > answered + 20)  # noqa: B023 (called at once)
    verdict = load.verdict()
    assert verdict.good, verdict


def test_full_queues(made: World) -> None:
    """A queue that takes no more makes its senders wait; it never drops a message."""
    worker = made.worker(forever=False)
    load = Load(made.witnesses(4, 0))
    worker.stop()
    with made.node.bounded(faults.DISPATCH, 2), ThreadPoolExecutor(1) as threads:
        sending = threads.submit(load.send, 20)
        until(lambda: sum(map(len, load.sent.values())) >= 4)
        made.worker()
        sending.result()
        verdict = load.verdict()
    assert verdict.good, verdict


def test_a_queue_that_stays_full_is_told(made: World) -> None:
    broker = RabbitMQBroker(made.node.url, publish_deadline=1.0)
    full, free = QueueSpec(f"{made.carol.user_id}.full"), QueueSpec(f"{made.carol.user_id}.free")
    broker.declare(full, free)
    with made.node.bounded(r"\.full$", 1):
        broker.publish(full.name, b"1")
        refused = broker.publish_async(full.name, b"2")
        broker.publish(free.name, b"3")
        assert not refused.done(), "others do not wait for it"
        with pytest.raises(BrokerError, match=r"refused a message to queue .*full"):
            refused.result(30)
    broker.delete(full.name)
    broker.delete(free.name)
    broker.close()


@pytest.mark.parametrize("alarm", faults.ALARMS)
def test_acknowledgements_go_on_while_publishing_is_blocked(alarm: str, made: World, tmp_path: Path) -> None:
    made.environment["COFLOWS_PARK_AFTER"] = "600"
    made.worker()
    serve_flow(made.alice, "tests.chaos.flows.Slow", "slow")
    load = Load(made.witnesses(2, 0))
    slow = get_flow_instance(made.carol, "slow", made.alice.user_id)
    load.send(3)
    assert load.verdict().good

    def in_hand(count: int) -> bool:
        """Whether that many messages of the partitions are not acknowledged."""
        counted = '[{name, {_, _, _, Queue}}, {messages, Count}] <- rabbit_amqqueue:info_all(<<"/">>, [name, messages])'
        ours = f'string:find(Queue, "{made.alice.user_id}.dispatch") =/= nomatch'
        return int(made.node.evaluate(f"lists:sum([Count || {counted}, {ours}])")) == count

    gate = tmp_path / "gate"
    slow.send_message(slow.package_input_message({"gate": str(gate), "number": 0}))
    until(gate.with_suffix(".runs").exists)
    until(lambda: in_hand(1), pause=0.3)
    on, off = faults.ALARMS[alarm]
    made.node.evaluate(on)
    with ThreadPoolExecutor(1) as threads:
        try:
            sending = threads.submit(load.send, 1)
            gate.touch()
            until(lambda: in_hand(0), pause=0.3)
            assert not sending.done(), "publishing was not blocked"
        finally:
            made.node.evaluate(off)
        sending.result()
    verdict = load.verdict()
    assert verdict.good, verdict


@pytest.fixture
def impatient(rabbitmq_node: RabbitMQ) -> Iterator[None]:
    """Channels opened from now on are closed when they hold a message for two seconds."""

    def set_to(timeout: int, tick: int) -> None:
        for name, value in (("consumer_timeout", timeout), ("channel_tick_interval", tick)):
            rabbitmq_node.evaluate(f"application:set_env(rabbit, {name}, {value})")

    set_to(2_000, 500)
    yield
    set_to(1_800_000, 60_000)


def outlast_the_consumer_timeout(made: World) -> None:
    """Hold a message until the server has had enough."""
    with pika.BlockingConnection(pika.URLParameters(made.node.url)) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"held")
        channel.basic_consume(queue, lambda *_: None)
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="timed out"):
            channel.start_consuming()


@pytest.mark.parametrize("workers", [1, 2])
def test_turns_longer_than_the_consumer_timeout(workers: int, impatient: None, made: World, tmp_path: Path) -> None:
    made.environment["COFLOWS_PARK_AFTER"] = "0.5"
    serve_flow(made.alice, "tests.chaos.flows.Slow", "slow")
    for _ in range(workers):
        made.worker()
    load = Load(made.witnesses(8, 0))
    gate = tmp_path / "gate"
    slow = [get_flow_instance(made.carol, "slow", made.alice.user_id) for _ in range(8)]
    turns = [
        flow.get_reply_future(flow.package_input_message({"gate": str(gate), "number": number}))
        for number, flow in enumerate(slow)
    ]
    with running(load):
        for _ in range(2):
            outlast_the_consumer_timeout(made)
        gate.touch()
        assert [turn.get_data(90) for turn in turns] == [{"seen": [number]} for number in range(8)]
    assert sorted(gate.with_suffix(".runs").read_text().split()) == [str(number) for number in range(8)], "begun once"
    verdict = load.verdict()
    assert verdict.good, verdict


def test_a_queue_declared_before_with_other_arguments(made: World) -> None:
    queue = dispatch_queues(made.alice.user_id, "coflows_dispatch", 8)[3].name
    with pika.BlockingConnection(pika.URLParameters(made.node.url)) as connection:
        channel = connection.channel()
        channel.queue_delete(queue)
        channel.queue_declare(queue, durable=True, arguments={"x-max-length": 10})
    done = subprocess.run(
        [sys.executable, "-m", "coflows.cli", "--as", "alice", "worker", "all"],
        env=made.environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == QueueMismatchError.exit_code
    assert queue in done.stderr and f"rabbitmqctl delete_queue {queue}" in done.stderr
    assert "Traceback" not in done.stderr and "Ready" not in done.stdout
