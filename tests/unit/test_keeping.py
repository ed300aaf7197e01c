"""When somebody else tells the owners of subflows that they are kept, whose fetcher has died over it."""

from __future__ import annotations

import pytest

from coflows.keeping import LIFETIMES, PATIENCE, Probation
from coflows.model.names import LOCAL

NOW = 1_000_000.0
SWEEP = 5.0


@pytest.mark.parametrize("timeout", [8.0, 15.0, 60.0, 600.0])
@pytest.mark.parametrize("took", [0.0, 0.5, 1.0])
def test_they_are_told_well_before_they_go(timeout: float, took: float) -> None:
    """However long the fetch took of the time that it had, and with a sweep that has just been missed."""
    at, gone = NOW + took * timeout, NOW + LIFETIMES * timeout
    record = Probation(LOCAL, None, {"bob": ["id"]}, at, gone)
    assert at < record.tell_at <= at + PATIENCE
    assert record.tell_at + SWEEP < gone - 0.5


def test_nobody_hurries_for_what_its_fetcher_may_not_have_got() -> None:
    assert Probation(LOCAL, None, {"bob": ["id"]}, NOW).tell_at == NOW + PATIENCE


def test_a_record_is_read_as_it_was_written() -> None:
    record = Probation(LOCAL, None, {"bob": ["id"]}, NOW, NOW + 16)
    assert Probation.decode(record.encode()) == record
