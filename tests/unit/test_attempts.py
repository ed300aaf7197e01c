"""Attempts: the pauses grow, and no two messages keep meeting."""

from __future__ import annotations

from itertools import combinations, pairwise

from coflows.dispatch.attempts import LONGEST_PAUSE, pause_before

MESSAGES = [f"{number:032x}" for number in range(40)]


def test_pauses_grow_up_to_a_bound() -> None:
    for message in MESSAGES:
        assert [pause_before(attempt, message) for attempt in (1, 2)] == [0.0, 0.0]
        assert 0.25 <= pause_before(3, message) < 0.75
        assert LONGEST_PAUSE / 2 <= pause_before(99, message) < 1.5 * LONGEST_PAUSE
    means = [sum(pause_before(attempt, message) for message in MESSAGES) for attempt in range(2, 9)]
    assert all(before < after for before, after in pairwise(means))


def test_messages_that_met_once_do_not_meet_at_each_attempt() -> None:
    for one, other in combinations(MESSAGES, 2):
        apart = [abs(pause_before(attempt, one) - pause_before(attempt, other)) for attempt in (3, 4, 5)]
        assert max(apart) > 0.01
