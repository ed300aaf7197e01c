"""The oracle bites."""

from __future__ import annotations

import pytest

from tests.chaos.oracle import judge

SENT = {"a": [1, 3, 5], "b": [2, 4]}


def test_nothing_wrong() -> None:
    verdict = judge(SENT, SENT, SENT)
    assert verdict.good and verdict.sent == 5


@pytest.mark.parametrize(
    ("answered", "seen", "field"),
    [
        (SENT, {"a": [1, 5], "b": [2, 4]}, "lost"),
        (SENT, {"a": [1, 3, 5]}, "lost"),
        (SENT, {"a": [1, 3, 3, 5], "b": [2, 4]}, "twice"),
        (SENT, {"a": [1, 5, 3], "b": [2, 4]}, "disordered"),
        ({"a": [1, 3], "b": [2, 4]}, SENT, "unended"),
        ({"a": [1, None, 5], "b": [2, 4]}, SENT, "failed"),
        ({"a": [1, 5, 5], "b": [2, 4]}, SENT, "failed"),
    ],
)
def test_what_is_wrong_is_counted(
    answered: dict[str, list[int | None]], seen: dict[str, list[int]], field: str
) -> None:
    verdict = judge(SENT, answered, seen)
    assert getattr(verdict, field) > 0 and not verdict.good
