"""A message that was delivered before is begun once more, or given up: its worker may have died over it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from coflows.client import Client
from coflows.dead_letters import OpenedLetter
from coflows.dispatch.attempts import next_attempt, pause_before
from coflows.dispatch.job import Job
from coflows.dispatch.turn import Turn
from coflows.dispatch.work import Work
from coflows.errors import PoisonMessageError
from coflows.model.failure import Failure
from coflows.model.layout import ATTEMPTS, attempts_key

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)


class Retries:
    """Which messages this worker knows to have been begun before, and what comes of them. Thread-safe."""

    def __init__(self, cl: Client, runner: Runner) -> None:
        self._cl = cl
        self._runner = runner
        self._counted: set[str] = set()

    def meet(self) -> None:
        """A partition was just taken: what other workers have counted is known from now on. Raises what the store
        raises."""
        self._counted.update(entry.key for entry in self._cl.store.scan(ATTEMPTS))

    def counts(self, job: Job) -> bool:
        """Whether the message was begun before. A broker that was killed may have forgotten that it was delivered."""
        if not job.again and self._counted:
            job.again = attempts_key(job.payload.flow_id, job.incoming.message_id) in self._counted
        return job.again

    def over(self, job: Job) -> None:
        """The message is done with, and its count deleted."""
        self._counted.discard(attempts_key(job.payload.flow_id, job.incoming.message_id))

    def begin(self, work: Work, job: Job, turn: Turn) -> OpenedLetter | None:
        """None once the turn may begin again, and that is counted; else the dead letter that its message becomes, of
        which the turn tells its sender. Others of its batch do not share its fate. Raises what the store raises."""
        self._runner.alone(work)
        message_id = turn.message.message_id
        attempt = next_attempt(self._cl.store, turn.flow_id, message_id)
        limit = self._cl.settings.max_attempts
        if attempt.number > limit:
            reason = f"It was begun {limit} times, and each time its worker ended before the turn did."
            return _give_up(job, turn, reason)
        if (seconds := pause_before(attempt.number, message_id)) > 0:
            logger.warning("Attempt %d at message %s, in %.1f s.", attempt.number, message_id, seconds)
            with self._runner.pause(work):
                time.sleep(seconds)
                self._runner.quarantine.enter(job)
        # Counted after the pause: a worker that dies during it died of something else.
        attempt.begin(self._cl.store, job.claim)
        self._counted.add(attempt.key)
        return None


def _give_up(job: Job, turn: Turn, reason: str) -> OpenedLetter:
    message_id, address = turn.message.message_id, turn.address
    logger.error("Message %s goes to the dead letters: %s", message_id, reason)
    turn.fail(Failure.of(PoisonMessageError(reason, hint="The owner finds it with `coflows dlq list`.")))
    return OpenedLetter(
        dispatch_point=address.dispatch_point,
        partition=address.partition,
        sender=job.incoming.sender,
        message_id=message_id,
        flow_id=turn.flow_id,
        reason=reason,
        payload=job.incoming.data,
    )
