"""Ends turns that take longer than their callers may have one take."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coflows.dispatch.job import Job
from coflows.dispatch.work import Work
from coflows.errors import TurnTimeExceededError

GRACE = 1.0
"""Seconds that a turn has to end once it is told to. Who waits for one that does not is answered without it."""


def look(works: Iterable[Work], now: float, abandon: Callable[[Work, Job], None]) -> None:
    """To be called about once a second with what is being worked off: what is over its time is cancelled, and
    abandoned when that does not end it. ``now`` is the monotonic clock's."""
    for work in works:
        job = work.job
        if job is None or job.quota is None or job.quota.turn_seconds is None:
            continue
        over = now - work.since - job.quota.turn_seconds
        if over > 0.0 and job.ended_by is None:
            job.ended_by = TurnTimeExceededError(
                f"The turn took longer than the {job.quota.turn_seconds:g} s that a turn of yours may take.",
                hint="Nothing of it was kept. Ask for less at a time, or the flow's owner for more.",
            )
            job.cancel()
        elif over > GRACE and job.ended_by is not None:
            abandon(work, job)
