"""Each fault under load: nothing is lost, nothing is applied twice, the order holds, every future ends."""

from __future__ import annotations

import contextlib
import random
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from coflows.broker.base import Broker
from coflows.dead_letters import list_dead_letters, replay_dead_letter
from coflows.errors import DeadLetterNotFoundError, PoisonMessageError
from coflows.lines import Lines
from coflows.serving import get_flow_instance
from tests.chaos import faults
from tests.chaos.world import Load, World, Worlds
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(240)]
TIMEOUT = 60
ELSEWHERE = ("broker killed", "broker restarted", "broker frozen and thawed")
"""See test_broker_faults.py."""


@pytest.mark.parametrize("name", [name for name in faults.FAULTS if name not in ELSEWHERE])
def test_fault_under_load(name: str, made: World) -> None:
    for user in ("alice", "alice", "bob"):
        made.worker(user)
    load = Load(made.witnesses(8, 2))
    load.send(5)
    sending = threading.Thread(target=load.send, args=(30,))
    sending.start()
    faults.FAULTS[name](made, random.Random(name))
    sending.join()
    load.send(5)
    verdict = load.verdict()
    assert verdict.good, verdict
    assert list_dead_letters(made.alice) == []


@pytest.mark.parametrize("count", [1, 7])
@pytest.mark.parametrize("name", ["before_commit", "mid_turn", "after_commit", "after_publish"])
def test_worker_killed_at(name: str, count: int, made: World) -> None:
    worker = made.worker(failpoint=f"{name}:{count}")
    load = Load(made.witnesses(4, 0))
    load.send(8)
    verdict = load.verdict()
    assert verdict.good, verdict
    assert worker.deaths == 1, "the failpoint was never reached"


def test_a_deleted_queue_is_filled_again_by_those_who_wait(made: World) -> None:
    first = made.worker(forever=False)
    load = Load(made.witnesses(8, 0))
    first.stop()
    load.send(3)
    faults.delete_queues(made)
    made.worker()
    verdict = load.verdict()
    assert verdict.good, verdict


def test_workers_come_and_go(made: World) -> None:
    made.worker("bob")
    workers = [made.worker(forever=False)]
    load = Load(made.witnesses(8, 2))
    for _ in range(3):
        load.send(5)
        workers.append(made.worker(forever=False))
    for worker in workers[:-1]:
        load.send(5)
        worker.signal(faults.signal.SIGTERM)
    verdict = load.verdict()
    assert verdict.good, verdict


def test_a_connection_cut_at_any_byte(rabbitmq_node: RabbitMQ, worlds: Worlds) -> None:
    proxy = Proxy(rabbitmq_node.url)
    with worlds(broker_url=proxy.url) as made:
        made.worker()
        load = Load(made.witnesses(4, 0))
        for offset in range(0, 1500, 50):
            proxy.cut_after(offset)
            load.send(1)
        proxy.mend()
        verdict = load.verdict()
    proxy.close()
    assert verdict.good, verdict


class Storm(Broker):
    """Says at once that it has a message, and then gives it on twice and out of order."""

    def __init__(self, broker: Broker, dice: random.Random) -> None:
        self._broker = broker
        self._dice = dice
        self._held: list[tuple[str, bytes]] = []
        self.url = broker.url

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        self._held += [(queue, body)] * 2
        said: Future[None] = Future()
        said.set_result(None)
        return said

    def break_loose(self) -> None:
        held, self._held = self._held, []
        self._dice.shuffle(held)
        for queue, body in held:
            self._broker.publish(queue, body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    declare = consume = get = exists = delete = close = None  # type: ignore[assignment]


def test_a_storm_of_duplicates_out_of_order(made: World, monkeypatch: pytest.MonkeyPatch) -> None:
    made.worker()
    flows = made.witnesses(4, 0)
    session = made.carol.session
    storm = Storm(made.carol.broker, random.Random(4))
    session.expect("00" * 16, made.alice.user_id)
    monkeypatch.setattr(session, "_broker", storm)
    monkeypatch.setattr(session, "_lines", Lines(session._publish))
    load = Load(flows)
    for _ in range(3):
        load.send(10)
        storm.break_loose()
    monkeypatch.setattr(session, "_broker", made.carol.broker)
    verdict = load.verdict()
    assert verdict.good, verdict


def test_poison_ends_with_the_dead_letters_and_its_neighbours_go_on(made: World, tmp_path: Path) -> None:
    worker = made.worker()
    flow = get_flow_instance(made.carol, "poison", made.alice.user_id)
    neighbours = Load(made.witnesses(3, 0))
    deadly = tmp_path / "deadly"
    deadly.touch()
    poisoned = flow.get_reply_future(flow.package_input_message({"deadly_while": str(deadly)}))
    behind = flow.get_reply_future(flow.package_input_message({}))
    neighbours.send(5)
    with pytest.raises(PoisonMessageError):
        poisoned.get_data(TIMEOUT)
    assert behind.get_data(TIMEOUT) == {"count": 1}
    assert neighbours.verdict().good
    assert worker.deaths == 5 == len((tmp_path / "deadly.runs").read_text())
    (letter,) = list_dead_letters(made.alice)
    assert letter.sender == made.carol.user_id and "5 times" in letter.reason
    deadly.unlink()
    for _ in range(2):
        with contextlib.suppress(DeadLetterNotFoundError):  # It may have been worked off before it is replayed again.
            replay_dead_letter(made.alice, letter.id)
    assert made.carol.reopen_future(poisoned.key).get_data(TIMEOUT) == {"count": 2}
    assert flow.ask({}, TIMEOUT) == {"count": 3}, "replayed twice, applied once"
    assert list_dead_letters(made.alice) == []
