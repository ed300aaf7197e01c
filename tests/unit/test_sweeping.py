"""Sweeping: what no message can ask for any more goes, page by page; all else stays."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coflows.codec.wire import encode
from coflows.dispatch.records import PushCall, TurnRecord
from coflows.dispatch.sweeping import LONGEST, MARGIN, PAGE, ROUND, Sweeper, begin_round, is_old, sweep_page
from coflows.model.layout import (
    ATTEMPTS,
    CALLS,
    CHARGED,
    DONE,
    GRANTED,
    GRANTS,
    ORDER,
    RELEASED,
    REPLIES,
    REVOKED,
    SPENT,
    WORKERS,
    attempts_key,
    call_key,
    done_key,
    order_key,
    released_key,
    reply_key,
    workers_prefix,
)
from coflows.model.messages import ReplyAddress, ReplyMode
from coflows.store import open_store
from coflows.store.base import Store

DAY = 86400.0
TTL = 7 * DAY


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store("sqlite://", namespace="me", default_path=tmp_path / "store.db") as store:
        yield store


@pytest.mark.parametrize("prefix", [DONE, ORDER, ATTEMPTS, CHARGED, RELEASED])
def test_a_record_is_kept_for_as_long_as_its_message_can_come(prefix: str) -> None:
    assert not is_old(prefix, {"at": 0.0}, TTL + MARGIN, TTL)
    assert is_old(prefix, {"at": 0.0}, TTL + MARGIN + 1, TTL)


def test_a_sender_may_give_his_messages_longer_but_not_for_ever() -> None:
    record = {"at": 0.0, "until": int(20 * DAY)}
    assert not is_old(DONE, record, 20 * DAY + MARGIN, TTL)
    assert is_old(DONE, record, 20 * DAY + MARGIN + 1, TTL)
    assert not is_old(DONE, {"at": 0.0, "until": 2**63}, LONGEST + 2 * MARGIN, TTL)
    assert is_old(DONE, {"at": 0.0, "until": 2**63}, LONGEST + 2 * MARGIN + 1, TTL)


@pytest.mark.parametrize("prefix", [GRANTS, GRANTED, SPENT, REVOKED])
def test_what_a_grant_has_spent_and_that_it_was_taken_back_is_known_for_as_long_as_it_lasts(prefix: str) -> None:
    record = {"at": 0.0, "until": 1000 * DAY}
    assert not is_old(prefix, record, 1000 * DAY + MARGIN, TTL)
    assert is_old(prefix, record, 1000 * DAY + MARGIN + 1, TTL)


def test_a_call_is_remembered_for_as_long_as_somebody_may_answer_it() -> None:
    assert not is_old(CALLS, {"at": 0.0}, LONGEST + MARGIN, TTL)
    assert is_old(CALLS, {"at": 0.0}, LONGEST + MARGIN + 1, TTL)


def test_a_call_of_before_there_were_dates_gets_one(store: Store) -> None:
    origin = ReplyAddress(ReplyMode.STORAGE, "a" * 52, "1" * 32, "2" * 32)
    keys = [call_key("f", f"{number:04}") for number in range(PAGE + 1)]
    value = encode({"owner": "u", "origin": origin.to_dict()})
    store.commit(dict.fromkeys(keys, value))
    following = sweep_page(store, CALLS, None, 5e9, TTL)
    assert following is not None and sweep_page(store, CALLS, following, 5e9, TTL) is None
    assert [PushCall.decode(entry.value) for entry in store.scan(CALLS)] == [PushCall("u", origin, 5e9)] * len(keys)
    sweep_page(store, CALLS, None, 5e9 + LONGEST + MARGIN + 1, TTL)
    assert store.keys(CALLS) == keys[PAGE:]


def test_a_worker_that_says_nothing_for_an_hour_is_forgotten() -> None:
    assert not is_old(WORKERS, {"at": 0.0}, MARGIN, TTL)
    assert is_old(WORKERS, {"at": 0.0}, MARGIN + 1, TTL)


def _records(at: float, name: str) -> dict[str, bytes]:
    """One of each kind."""
    return {
        done_key("f", name): TurnRecord([], 0, at).encode(),
        reply_key("f", f"earlier{name}"): name.encode(),
        order_key("f", name): encode({"passed": 3, "at": at}),
        call_key("f", name): PushCall("u", None, at).encode(),
        attempts_key("f", name): encode({"number": 2, "at": at}),
        released_key("u", name): encode({"at": at}),
        f"{workers_prefix('p')}{name}": encode({"at": at}),
    }


def test_old_records_go_and_young_ones_stay(store: Store) -> None:
    young, others = _records(time.time(), "young"), {"flows:e:init": b"", "dead:1": b""}
    store.commit({**_records(0.0, "old"), **young, **others})
    for prefix in (DONE, ORDER, ATTEMPTS, CALLS, RELEASED, WORKERS, REPLIES):
        assert sweep_page(store, prefix, None, time.time(), TTL) is None
    assert set(store.keys()) == {*young, *others}


def test_a_page_is_bounded_and_the_next_one_goes_on(store: Store) -> None:
    store.commit({done_key("f", f"{number:04}"): TurnRecord([], 0, 0.0).encode() for number in range(2 * PAGE + 1)})
    start, left = None, []
    for _ in range(3):
        start = sweep_page(store, DONE, start, time.time(), TTL)
        left.append(len(store.keys(DONE)))
    assert left == [PAGE + 1, 1, 0] and start is None


def test_what_is_written_meanwhile_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.commit(_records(0.0, "a") | _records(0.0, "b"))
    scan = store.scan

    def scan_then_write(*arguments: object, **bounds: object) -> object:
        page = scan(*arguments, **bounds)
        store.commit({order_key("f", "a"): encode({"passed": 4, "at": time.time()})})
        return page

    monkeypatch.setattr(store, "scan", scan_then_write)
    sweep_page(store, ORDER, None, time.time(), TTL)
    assert store.keys(ORDER) == [order_key("f", "a")]


def test_workers_take_turns(store: Store) -> None:
    assert begin_round(store, 1000.0)
    assert not begin_round(store, 1000.0 + ROUND - 1)
    assert begin_round(store, 1000.0 + ROUND)
    assert begin_round(store, 0.0), "a clock that was set back does not stop it"


def test_a_sweeper_goes_through_all_of_it(store: Store) -> None:
    young, gone = _records(time.time(), "young"), threading.Event()
    store.commit({key: value for number in range(PAGE + 1) for key, value in _records(0.0, str(number)).items()})
    store.commit(young)

    def look(_keys: frozenset[str]) -> None:
        if set(store.keys()) == {*young, "swept"}:
            gone.set()

    watch = store.watch("", look)
    sweeper = Sweeper(store, TTL)
    assert gone.wait(60), store.keys()
    sweeper.close()
    watch.close()
