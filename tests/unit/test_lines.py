"""Lines: an idle line sends at once, a busy one gathers, in order, and every message learns what became of it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from coflows.errors import BrokerError, BrokerUnavailableError, UnroutableError
from coflows.identity.sealing import MAX_ITEMS, Item
from coflows.lines import KEEPS_PLACE, MAX_BYTES, Lines


class Broker:
    """Confirms when told to."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, list[Item], Future[None]]] = []

    def publish(self, queue: str, recipient: str, items: Sequence[Item]) -> Future[None]:
        future: Future[None] = Future()
        self.sent.append((queue, list(items), future))
        return future


def ids(broker: Broker) -> list[list[str]]:
    return [[item.message_id for item in items] for _, items, _ in broker.sent]


def test_what_comes_while_one_is_unconfirmed_leaves_together() -> None:
    broker, done = Broker(), []
    lines = Lines(broker.publish)
    for name in "abcd":
        lines.post("q", "bob", name, b"x", lambda error, name=name: done.append((name, error)))
    assert ids(broker) == [["a"]]
    broker.sent[0][2].set_result(None)
    assert ids(broker) == [["a"], ["b", "c", "d"]] and done == [("a", None)]
    broker.sent[1][2].set_result(None)
    lines.post("q", "bob", "e", b"x", lambda error: done.append(("e", error)))
    assert ids(broker)[2] == ["e"]
    assert done == [(name, None) for name in "abcd"]


def test_other_queues_do_not_wait() -> None:
    broker = Broker()
    lines = Lines(broker.publish)
    lines.post("q", "bob", "a", b"x", lambda _error: None)
    lines.post("r", "eve", "b", b"x", lambda _error: None)
    assert ids(broker) == [["a"], ["b"]]


def test_an_envelope_is_bounded_in_bytes_and_number() -> None:
    for payload, most in ((b"x" * (MAX_BYTES // 2), 2), (b"", MAX_ITEMS)):
        broker = Broker()
        lines = Lines(broker.publish)
        for _ in range(most + 2):
            lines.post("q", "bob", "m", payload, lambda _error: None)
        broker.sent[0][2].set_result(None)
        broker.sent[1][2].set_result(None)
        assert [len(items) for _, items, _ in broker.sent] == [1, most, 1]


def test_a_failed_publish_fails_its_messages_and_the_line_goes_on() -> None:
    broker, done = Broker(), []
    lines = Lines(broker.publish)
    for name in "abc":
        lines.post("q", "bob", name, b"x", lambda error, name=name: done.append((name, error)))
    problem = RuntimeError("no")
    broker.sent[0][2].set_exception(problem)
    broker.sent[1][2].set_result(None)
    assert done == [("a", problem), ("b", None), ("c", None)]


def test_numbers_follow_the_order_of_posting_and_a_second_sending_keeps_its_place() -> None:
    broker = Broker()
    lines = Lines(broker.publish)
    first = lines.post("q", "bob", "a", b"", lambda _error: None, ordered="flow")
    second = lines.post("q", "bob", "b", b"", lambda _error: None, ordered="flow")
    other = lines.post("q", "bob", "c", b"", lambda _error: None, ordered="another")
    assert first and second and other
    assert (first.number, second.number, other.number) == (1, 2, 1)
    assert first.stream == second.stream != other.stream
    assert lines.post("q", "bob", "a", b"", lambda _error: None, place=first) == first


def test_without_gathering_each_leaves_by_itself() -> None:
    broker = Broker()
    lines = Lines(broker.publish, gather=False)
    for name in "ab":
        lines.post("q", "bob", name, b"", lambda _error: None)
    assert ids(broker) == [["a"], ["b"]]


def test_the_numbers_of_what_was_not_kept_are_given_out_again() -> None:
    broker, done = Broker(), []
    lines = Lines(broker.publish)

    def post(name: str) -> None:
        lines.post("q", "bob", name, b"x", done.append, ordered="flow")

    post("a")
    broker.sent[0][2].set_result(None)
    post("b")
    broker.sent[1][2].set_exception(UnroutableError("gone"))
    for name in "cde":
        post(name)
    broker.sent[2][2].set_exception(UnroutableError("gone"))  # d and e have numbers after c's.
    broker.sent[3][2].set_exception(UnroutableError("gone"))
    post("f")
    broker.sent[4][2].set_exception(BrokerUnavailableError("perhaps it was kept"))
    post("g")
    numbers = [[item.number for item in items] for _, items, _ in broker.sent]
    assert numbers == [[1], [2], [2], [3, 4], [3], [4]]


def test_thousands_that_fail_at_once_are_all_told() -> None:
    """The broker was closed while an envelope was unconfirmed and many more waited."""
    first: Future[None] = Future()
    told: list[BaseException | None] = []

    def publish(_queue: str, _recipient: str, items: Sequence[Item]) -> Future[None]:
        if items[0].message_id == "0":
            return first
        failed: Future[None] = Future()
        failed.set_exception(BrokerUnavailableError("closed"))
        return failed

    lines = Lines(publish)
    for number in range(2000):
        lines.post("q", "bob", str(number), b"x" * MAX_BYTES, told.append)
    first.set_result(None)
    assert len(told) == 2000 and told[0] is None and all(told[1:])
    assert lines.post("q", "bob", "again", b"", told.append) is None and len(told) == 2001


def test_a_queue_that_is_not_there_costs_the_same_however_many_streams_there_are() -> None:
    def publish(_queue: str, _recipient: str, _items: Sequence[Item]) -> Future[None]:
        failed: Future[None] = Future()
        failed.set_exception(UnroutableError("nobody"))
        return failed

    def seconds(streams: int) -> float:
        lines = Lines(lambda _queue, _recipient, _items: Future())
        lines.post_many("q", "bob", [("m", b"", str(number)) for number in range(streams)], lambda _error: None)
        lines._publish = publish
        begun = time.perf_counter()
        for number in range(100):
            lines.post(f"q{number}", "bob", "m", b"", lambda _error: None)
        return time.perf_counter() - begun

    seconds(1)
    assert seconds(50_000) < 20 * seconds(1) + 0.05


def test_what_was_refused_keeps_its_place_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent again under a new number it would have those that come after it wait for the old one."""
    broker, refusal = Broker(), BrokerError("The queue is full.")
    lines = Lines(broker.publish)
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def posted(message_id: str, outcome: BrokerError | None) -> int:
        lines.post_many("q", "bob", [(message_id, b"", "flow")], lambda _error: None)
        _, (item,), future = broker.sent[-1]
        future.set_exception(outcome) if outcome else future.set_result(None)
        return item.number

    assert posted("a", refusal) == 1
    assert posted("b", None) == 2
    now[0] += KEEPS_PLACE - 1
    assert posted("a", refusal) == posted("a", None) == 1
    assert posted("a", None) == 3, "it had got there"
    assert posted("c", refusal) == 4
    now[0] += KEEPS_PLACE - 1
    assert posted("c", refusal) == 4
    now[0] += 1
    assert posted("c", None) == 5, "they do not wait for it any more"
