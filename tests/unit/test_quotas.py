"""The pure parts of quotas: buckets, accounts, fair queues, and what is a quota."""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.config import load_settings
from coflows.errors import ConfigurationError
from coflows.quotas.accounts import FORGET, RETRY, Accounts, Excess
from coflows.quotas.bucket import TokenBucket
from coflows.quotas.fair_queue import FairQueue
from coflows.quotas.quota import BURST, Quota

QUOTA = Quota(messages=3, bytes_per_second=100.0)
SECONDS = st.floats(0.0, 100.0)
AMOUNTS = st.floats(0.0, 500.0)


# -- buckets ---------------------------------------------------------------------------------------------------


@given(steps=st.lists(st.tuples(SECONDS, AMOUNTS), max_size=40), rate=st.floats(0.1, 100.0))
def test_a_bucket_gives_no_more_than_its_rate_and_one_burst(steps: list[tuple[float, float]], rate: float) -> None:
    capacity = 4 * rate
    bucket, now, given = TokenBucket(capacity, 0.0), 0.0, 0.0
    for seconds, amount in steps:
        now += seconds
        if bucket.take(amount, rate, capacity, now) == 0.0:
            given += amount
        # More than fits is given once, and owed from then on.
        assert given <= (rate * now + capacity) * (1 + 1e-9) + max((one for _, one in steps), default=0.0)


@given(steps=st.lists(st.tuples(SECONDS, AMOUNTS), max_size=20), amount=AMOUNTS, rate=st.floats(0.1, 100.0))
def test_what_is_refused_is_given_after_the_time_that_was_said(
    steps: list[tuple[float, float]], amount: float, rate: float
) -> None:
    capacity = 4 * rate
    bucket, now = TokenBucket(capacity, 0.0), 0.0
    for seconds, before in steps:
        now += seconds
        bucket.take(before, rate, capacity, now)
    wait = bucket.take(amount, rate, capacity, now)
    assert wait == 0.0 or bucket.take(amount, rate, capacity, now + wait * (1 + 1e-6) + 1e-6) == 0.0


@given(times=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40))
def test_a_clock_that_goes_back_and_forth_gives_only_what_went_by_forwards(times: list[float]) -> None:
    bucket, taken = TokenBucket(10.0, times[0]), 0
    for now in times:
        while bucket.take(1.0, 1.0, 10.0, now) == 0.0:
            taken += 1
    forwards = sum(max(0.0, min(later - before, 10.0)) for before, later in pairwise(times))
    assert taken <= 10 + forwards + 1e-3


# -- accounts --------------------------------------------------------------------------------------------------


@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.booleans()), max_size=60))
def test_nobody_has_more_in_hand_than_he_may(steps: list[tuple[str, bool, bool]]) -> None:
    accounts, model = Accounts(), {"a": 0, "b": 0}
    for key, comes, always in steps:
        account = accounts.get(key, QUOTA, 0.0)
        if comes:
            excess = account.admit(0, 0.0, always=always)
            assert (excess is None) == (always or model[key] < 3), "and what the others have makes no difference"
            model[key] += excess is None
            assert excess in (None, Excess("messages", RETRY))
        elif model[key]:
            accounts.leave([account])
            model[key] -= 1
        assert {key: accounts.get(key, QUOTA, 0.0).in_hand for key in model} == model


def test_bytes_are_counted_both_ways_and_one_who_owes_waits() -> None:
    accounts = Accounts()
    account, other = accounts.get("a", QUOTA, 0.0), accounts.get("b", QUOTA, 0.0)
    quota = Quota(messages=None, bytes_per_second=100.0)
    account.use(quota, 0.0)
    assert account.admit(400, 0.0) is None
    assert account.admit(50, 0.0) == Excess("bytes_per_second", 0.5)
    assert account.admit(50, 0.5) is None
    assert not account.owes(0.5)
    account.charge(200)
    assert account.owes(0.5) and not other.owes(0.5)
    assert account.admit(1000, 1.0, paid=True) is None, "its bytes were counted when it came first"
    assert not account.owes(3.0)


def test_nobody_takes_more_memory_than_he_may() -> None:
    accounts = Accounts()
    account = accounts.get("a", Quota(messages=None, bytes_per_second=2.0**20), 0.0)
    assert account.room == 8 * 2**20
    assert account.admit(1, 0.0, weight=9 * 2**20) is None, "one always gets in"
    assert account.admit(1, 0.0, weight=1) == Excess("in_hand", RETRY)
    assert account.admit(1, 0.0, weight=2**20, always=True) is None
    accounts.leave([account, account], [9 * 2**20, 2**20])
    assert account.held == 0
    assert account.admit(1, 0.0, weight=8 * 2**20) is None
    assert Quota(bytes_per_second=None).in_hand == float("inf")


def test_accounts_are_forgotten_when_nothing_is_left_of_what_they_say() -> None:
    accounts = Accounts()
    opened = [accounts.get(f"user {number}", QUOTA, 0.0) for number in range(100)]
    for account in opened:
        account.admit(400, 0.0)
    accounts.sweep(FORGET + 5)
    assert len(accounts) == 100, "they have something in hand"
    accounts.leave(opened)
    accounts.sweep(1.0)
    assert len(accounts) == 100, "their bytes count still"
    accounts.sweep(FORGET + 5)
    assert len(accounts) == 0


# -- fair queues -----------------------------------------------------------------------------------------------


class NaiveQueue:
    """What a fair queue is, told slowly: all items in the order of their owners, and in which order these are next."""

    def __init__(self) -> None:
        self.items: list[tuple[str, int]] = []
        self.turns: list[str] = []

    def push(self, owner: str, item: int) -> None:
        self.items.append((owner, item))
        if owner not in self.turns:
            self.turns.append(owner)

    def push_first(self, owner: str, item: int) -> None:
        self.items.insert(0, (owner, item))
        self.turns = [owner, *(one for one in self.turns if one != owner)]

    def pop(self, skip: Collection[str]) -> tuple[str, int] | None:
        for owner in self.turns:
            if owner not in skip:
                found = next(one for one in self.items if one[0] == owner)
                self.items.remove(found)
                self.turns.remove(owner)
                self.turns += [owner] if any(one[0] == owner for one in self.items) else []
                return found
        return None

    def discard(self, items: Collection[int]) -> list[int]:
        gone = [item for _, item in self.by_owner if item in items]
        self.items = [one for one in self.items if one[1] not in items]
        self.turns = [owner for owner in self.turns if any(one[0] == owner for one in self.items)]
        return gone

    @property
    def by_owner(self) -> list[tuple[str, int]]:
        return [one for owner in self.turns for one in self.items if one[0] == owner]


@given(data=st.data(), steps=st.lists(st.sampled_from(["push", "push", "first", "pop", "discard"]), max_size=60))
def test_each_has_his_turn_and_his_own_order(data: st.DataObject, steps: list[str]) -> None:
    queue: FairQueue[str, int] = FairQueue()
    model = NaiveQueue()
    for number, step in enumerate(steps):
        if step == "push":
            owner = data.draw(st.sampled_from("abc"))
            queue.push(owner, number)
            model.push(owner, number)
        elif step == "first":
            owner = data.draw(st.sampled_from("abc"))
            queue.push_first(owner, number)
            model.push_first(owner, number)
        elif step == "pop":
            skip, other = data.draw(st.sets(st.sampled_from("abc"), max_size=2)), data.draw(st.sampled_from("abc"))
            assert queue.waits(skip) == any(owner not in skip for owner in model.turns)
            assert queue.waits(skip, other) == any(owner not in {*skip, other} for owner in model.turns)
            assert queue.pop(skip) == model.pop(skip)
        else:
            items = data.draw(st.sets(st.integers(0, number), max_size=5))
            assert queue.discard(items) == model.discard(items)
        assert list(queue.owners) == model.turns
        assert list(queue) == [item for _, item in model.by_owner]
        assert bool(queue) == bool(model.items)


@given(counts=st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_who_puts_in_much_waits_as_if_there_were_less(counts: list[int]) -> None:
    queue: FairQueue[int, int] = FairQueue()
    for owner, count in enumerate(counts):
        for item in range(count):
            queue.push(owner, item)
    order = []
    while (found := queue.pop()) is not None:
        order.append(found)
    for place, (_, item) in enumerate(order):
        assert place <= (item + 1) * len(counts) - 1


def test_what_is_taken_out_is_given() -> None:
    queue: FairQueue[str, int] = FairQueue()
    for number in range(6):
        queue.push("ab"[number % 2], number)
    assert sorted(queue.discard({0, 1, 2, 4})) == [0, 1, 2, 4]
    assert list(queue.owners) == ["b"] and list(queue) == [3, 5]


# -- quotas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "limits",
    [{"messages": 0}, {"messages": -1}, {"messages": "many"}, {"messages": True}, {"turn_seconds": float("nan")}],
)
def test_what_is_no_limit_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Quota().with_limits(limits)


def test_an_unknown_limit_is_refused_by_its_name() -> None:
    with pytest.raises(ConfigurationError, match=r"'mesages'.*messages"):
        Quota().with_limits({"mesages": 5})


def test_limits_are_set_one_by_one() -> None:
    quota = Quota().with_limits({"messages": 5, "bytes_per_second": None})
    assert (quota.messages, quota.bytes_per_second, quota.burst) == (5, None, float("inf"))
    assert quota.instances == Quota().instances
    assert Quota(bytes_per_second=10.0).burst == 10.0 * BURST


def test_the_environment_sets_what_everybody_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().quota == Quota()
    monkeypatch.setenv("COFLOWS_QUOTA_MESSAGES", "17")
    monkeypatch.setenv("COFLOWS_QUOTA_TURN_SECONDS", "none")
    assert load_settings().quota == Quota(messages=17, turn_seconds=None)
    monkeypatch.setenv("COFLOWS_QUOTA_INSTANCES", "0")
    with pytest.raises(ConfigurationError, match="COFLOWS_QUOTA_INSTANCES"):
        load_settings()
