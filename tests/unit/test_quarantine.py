"""Quarantine: one inside at a time, others wait, but not for ever."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor, wait

from coflows.dispatch.quarantine import Quarantine


def test_one_at_a_time() -> None:
    quarantine = Quarantine()
    quarantine.enter("a")
    quarantine.enter("a")
    with ThreadPoolExecutor(1) as threads:
        entering = threads.submit(quarantine.enter, "b")
        assert not wait([entering], 0.05).done
        quarantine.leave("somebody else")
        quarantine.leave("a")
        entering.result(10)
    quarantine.leave("b")
    quarantine.enter("a")


def test_nobody_waits_for_ever() -> None:
    quarantine = Quarantine()
    quarantine.enter("a")
    quarantine.enter("b", patience=0.01)
