"""Messages whose turns are committed, and what they sent was not taken by its queue: it is sent again after a while."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

from coflows.dispatch.job import Job

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

PAUSE, LONGER_PAUSE = 1.0, 10.0
"""Seconds until it is tried again; and when it was tried before."""


class _Batch(NamedTuple):
    due: float
    jobs: Sequence[Job]
    error: BaseException


class Refused:
    """Thread-safe. Times are those of any one clock, in seconds."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._batches: list[_Batch] = []
        self._lock = threading.Lock()

    def add(self, jobs: Sequence[Job], error: BaseException, now: float) -> None:
        """What these jobs' turns sent was not taken, because of ``error``."""
        before = any(job.again or job.parked is not None for job in jobs)
        with self._lock:
            self._batches.append(_Batch(now + (LONGER_PAUSE if before else PAUSE), jobs, error))

    def tick(self, now: float) -> None:
        """Have sent again what has waited long enough. The records of the turns have it: the messages come again, or
        are there, being parked."""
        with self._lock:
            due = [batch for batch in self._batches if batch.due <= now]
            self._batches = [batch for batch in self._batches if batch.due > now]
        for batch in due:
            for job in batch.jobs:
                if job.parked is not None:
                    job.fresh = False
                    self._runner.adopt(job)
            self._runner.settlement.settle([job for job in batch.jobs if job.parked is None], batch.error)

    def withdraw(self, jobs: Collection[Job]) -> list[Job]:
        """Those of the jobs that wait here need not wait any more; gives them."""
        gone: list[Job] = []
        with self._lock:
            for number, batch in enumerate(self._batches):
                gone += [job for job in batch.jobs if job in jobs]
                self._batches[number] = batch._replace(jobs=[job for job in batch.jobs if job not in jobs])
        return gone
