"""Sequencing: whatever order and however often messages come, they go on in the order sent, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coflows.dispatch.sequencing import MAX_EARLY, MAX_EARLY_BYTES, MAX_STREAMS, PATIENCE, Sequencer

KEY = ("flow", "stream")


def offered(sequencer: Sequencer[int], numbers: list[int], now: float = 0.0) -> list[int]:
    went: list[int] = []
    for number in numbers:
        if not sequencer.is_late(KEY, number):
            went += sequencer.offer(KEY, number, number, now)
    return went


@given(st.permutations(list(range(1, 12))), st.lists(st.integers(1, 11)))
def test_a_storm_goes_on_in_order(order: list[int], repeated: list[int]) -> None:
    sequencer: Sequencer[int] = Sequencer()
    sequencer.begin(KEY, 0)
    mixed = [number for pair in zip(order, repeated + order, strict=False) for number in pair]
    assert offered(sequencer, mixed + order) == list(range(1, 12))


def test_it_goes_on_from_what_the_store_knows() -> None:
    sequencer: Sequencer[int] = Sequencer()
    sequencer.begin(KEY, 7)
    assert sequencer.is_late(KEY, 7)
    assert offered(sequencer, [9, 8]) == [8, 9]


def test_what_never_comes_is_waited_for_only_so_long() -> None:
    sequencer: Sequencer[int] = Sequencer()
    sequencer.begin(KEY, 0)
    assert offered(sequencer, [3, 2, 5], now=10.0) == []
    assert sequencer.expire(10.0 + PATIENCE - 1) == []
    assert offered(sequencer, [7], now=20.0) == []
    assert sequencer.expire(10.0 + PATIENCE) == [2, 3, 5]
    assert sequencer.is_late(KEY, 1) and sequencer.is_late(KEY, 4), "too late now"
    assert offered(sequencer, [6], now=45.0) == [6, 7]


def test_a_stream_full_of_gaps_is_waited_for_once() -> None:
    sequencer: Sequencer[int] = Sequencer()
    sequencer.begin(KEY, 0)
    gaps = list(range(2, 2000, 2))
    assert offered(sequencer, gaps) == []
    assert sequencer.expire(PATIENCE) == gaps


def test_nobody_takes_all_the_room_for_what_is_early() -> None:
    sequencer: Sequencer[int] = Sequencer()
    other = ("flow", "honest")
    for key in (KEY, other):
        sequencer.begin(key, 0)
    sequencer.offer(other, 2, 0, 0.0, 100)
    went = [job for number in range(2, MAX_EARLY + 1000) for job in sequencer.offer(KEY, number, number, 0.0)]
    assert went == sorted(went) and len(went) >= MAX_EARLY
    assert sequencer.offer(KEY, 10**6, 7, 0.0, MAX_EARLY_BYTES) == [7], "bytes count too"
    assert sequencer.offer(other, 1, 1, 0.0) == [1, 0]


def test_streams_that_are_not_used_are_forgotten() -> None:
    sequencer: Sequencer[int] = Sequencer()
    for number in range(MAX_STREAMS + 10):
        sequencer.begin(("flow", str(number)), 0)
    sequencer.offer(("flow", "0"), 1, 1, 0.0)
    sequencer.offer(("flow", "1"), 2, 2, 0.0)
    assert sequencer.expire(1.0) == []
    known = [number for number in range(MAX_STREAMS + 10) if sequencer.knows(("flow", str(number)))]
    assert len(known) == MAX_STREAMS and known[:3] == [0, 1, 12]


def test_a_number_without_a_job_is_only_passed() -> None:
    sequencer: Sequencer[int] = Sequencer()
    sequencer.begin(KEY, 0)
    assert sequencer.offer(KEY, 2, 2, 0.0) == []
    assert sequencer.offer(KEY, 2, None, 0.0) == [], "the same message again does not take its own place away"
    assert sequencer.offer(KEY, 1, None, 0.0) == [2]


def test_withdrawn_jobs_do_not_go_on() -> None:
    sequencer: Sequencer[int] = Sequencer()
    sequencer.begin(KEY, 0)
    sequencer.offer(KEY, 2, 2, 0.0)
    sequencer.withdraw({2})
    assert offered(sequencer, [1]) == [1]
    sequencer.forget({"flow"})
    assert not sequencer.knows(KEY)
