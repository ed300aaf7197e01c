"""What somebody is told who asks for the reply to a message: its sender all, anybody else that there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coflows import Client
from coflows.codec.wire import decode, encode
from coflows.dispatch.answers import recorded
from coflows.dispatch.parking import Parked, ParkingLot
from coflows.dispatch.records import Outgoing, TurnRecord
from coflows.model.calls import Reply
from coflows.model.layout import done_key, reply_key
from coflows.model.messages import new_message_id
from coflows.model.wire import Recall
from coflows.store import open_store
from coflows.store.base import Store

FLOW = "00000000-0000-4000-8000-000000000000"
ASKED, LATER, SESSION = "1" * 32, "2" * 32, "3" * 32
SENDER, STRANGER = "a" * 52, "b" * 51 + "a"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store("sqlite://", namespace="me", default_path=tmp_path / "store.db") as store:
        yield store


@pytest.fixture
def told(users: Callable[..., list[Client]], store: Store) -> Callable[[str], Reply]:
    (owner,) = users(1)

    def ask(sender: str) -> Reply:
        recall = Recall(flow_id=FLOW, message_id=ASKED, session=SESSION)
        answer = recorded(owner.session, store, recall, sender, unknown=True)
        assert answer.recipient == sender
        return Reply.from_dict(decode(answer.data, max_bytes=10_000))

    return ask


def reply_to(message_id: str) -> Outgoing:
    return Outgoing("q", SENDER, new_message_id(), message_id, encode(Reply(message_id, {"a": 1}).to_dict()))


def test_a_recorded_answer(told: Callable[[str], Reply], store: Store) -> None:
    store.commit({done_key(FLOW, ASKED): TurnRecord.of(ASKED, SENDER, [reply_to(ASKED)], 0).encode()})
    assert told(SENDER).data == {"a": 1}
    assert told(STRANGER) == Reply(ASKED, pending=True, unknown=True)


def test_a_turn_that_has_not_answered(told: Callable[[str], Reply], store: Store) -> None:
    nothing = told(STRANGER)
    store.commit({done_key(FLOW, ASKED): TurnRecord.of(ASKED, SENDER, [], 0).encode()})
    assert told(SENDER) == Reply(ASKED, pending=True)
    assert told(STRANGER) == nothing == Reply(ASKED, pending=True, unknown=True)
    later = TurnRecord.of(LATER, STRANGER, [reply_to(ASKED)], 0).encode()
    store.commit({done_key(FLOW, LATER): later, reply_key(FLOW, ASKED): LATER.encode()})
    assert told(SENDER).data == {"a": 1} and told(STRANGER) == nothing


def test_a_record_of_before_it_told_the_sender(told: Callable[[str], Reply], store: Store) -> None:
    store.commit({done_key(FLOW, ASKED): TurnRecord([], 0).encode()})
    assert told(SENDER) == Reply(ASKED, pending=True), "it is not to be sent again"


def test_a_parked_message(store: Store) -> None:
    lot = ParkingLot(store, "point", "worker")
    lot.park([(Parked("worker", 3, SENDER, ASKED, FLOW, b""), None)])
    assert lot.has(3, FLOW, ASKED, SENDER) and not lot.has(3, FLOW, ASKED, STRANGER)
    assert not lot.has(4, FLOW, ASKED, SENDER)
