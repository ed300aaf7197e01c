"""What becomes of a message once it is worked off, or cannot be: replies leave, it is acknowledged, or it goes back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from coflows.dispatch.custody import Custody
from coflows.dispatch.intake import Intake
from coflows.dispatch.job import Job, Source
from coflows.dispatch.outbox import Outbox, Turns
from coflows.dispatch.refused import Refused
from coflows.dispatch.retries import Retries
from coflows.dispatch.turnstile import Turnstile
from coflows.errors import ConflictError
from coflows.failpoints import Failpoints

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds until a parked message that could not be worked off is begun again."""


class Settlement:
    """Thread-safe."""

    def __init__(
        self,
        runner: Runner,
        intake: Intake,
        outbox: Outbox,
        turnstile: Turnstile,
        custody: Custody,
        retries: Retries,
        refused: Refused,
        failpoints: Failpoints,
    ) -> None:
        self._runner = runner
        self._intake = intake
        self._outbox = outbox
        self._turnstile = turnstile
        self._custody = custody
        self._retries = retries
        self._refused = refused
        self._failpoints = failpoints

    def finish(self, turns: Turns) -> None:
        """Publish what was committed; once all of it is confirmed, acknowledge."""
        jobs = [job for job, _ in turns]
        self.answered(jobs)
        self._outbox.send(turns, partial(self._published, jobs))

    def answered(self, jobs: Iterable[Job]) -> None:
        """Their replies are about to leave: whoever gets one may send the next message."""
        self._turnstile.leave(jobs)

    def settle(self, jobs: Sequence[Job], error: BaseException | None) -> None:
        """The jobs are over: their deliveries are acknowledged, or after an error given back."""
        sources: dict[Source, list[Job]] = {}
        for job in jobs:
            self._intake.ended(job)
            if job.again and error is None:
                self._retries.over(job)
            if job.parked is not None:
                self._custody.over(job)
            twin = job.settle(again=error is not None)
            repeated = None if twin is None else self._intake.repeat(twin)
            if repeated is not None and job.source.track([repeated]):
                self._intake.begin_again(repeated)
            elif repeated is not None:
                self._intake.ended(repeated)
            sources.setdefault(job.source, []).append(job)
        for source, settled in sources.items():
            source.settled(settled)

    def give_up(self, job: Job, error: BaseException) -> None:
        """Something of ours failed, not the flow: the message goes back and is worked off again."""
        lease, queue = job.source.lease, job.source.name
        claim = job.claim
        lost = claim is not None and isinstance(error, ConflictError) and claim.key in error.keys
        if job.parked is not None and lost:
            logger.warning("Another worker has adopted message %s.", job.incoming.message_id)
            self._custody.lost(job)
        elif job.parked is not None:
            logger.error("Could not work off a parked message; trying again.", exc_info=error)
            job.fresh = False
            self._runner.later(RETRY, partial(self._runner.adopt, job))
        elif not lost:
            logger.error("Could not work off a message of %s; it goes back.", queue, exc_info=error)
            job.source.start_over()
        elif lease is not None and job.epoch is not None and (lease.holds(job.epoch) or job.twins):
            logger.warning("Another worker took %s over; what it has not seen goes back.", queue)
            job.source.start_over()
        self.put_off(job)

    def put_off(self, job: Job) -> None:
        """The job is not worked off now; its message comes again."""
        self._intake.ended(job)
        job.source.settled([job])

    def _published(self, jobs: Sequence[Job], error: BaseException | None) -> None:
        self._failpoints.reach("after_publish")
        if error is not None:
            logger.warning("Replies were not confirmed; %d message(s) go back soon: %s", len(jobs), error)
            self._turnstile.keep(jobs)
            self._refused.add(jobs, error, time.monotonic())
        else:
            self.settle(jobs, None)
