"""What turns have sent, on its way: gathered by queue, and told of when all of it is confirmed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from functools import partial

from coflows.dispatch.job import Job
from coflows.dispatch.records import Outgoing, is_session
from coflows.errors import BrokerError, BrokerUnavailableError, KeyRetiredError, UnroutableError
from coflows.failpoints import Failpoints
from coflows.lines import Message
from coflows.session import Session

logger = logging.getLogger(__name__)

Turns = Sequence[tuple[Job, Sequence[Outgoing]]]
"""Jobs that are over, and what the turn of each sent."""
Then = Callable[[BaseException | None], None]


class Outbox:
    """Thread-safe."""

    def __init__(self, session: Session, failpoints: Failpoints) -> None:
        self._session = session
        self._failpoints = failpoints

    def send(self, turns: Turns, then: Then) -> None:
        """Send what the turns sent, and call ``then`` when all is confirmed, with the first error that is not "no such
        queue" or "that user has ended": a session that is gone asks again for what is on record."""
        queues: dict[str, tuple[str, list[Message]]] = {}
        for _, sent in turns:
            for one in sent:
                queue = queues.get(one.queue)
                if queue is None:
                    queue = queues[one.queue] = (one.recipient, [])
                queue[1].append((one.message_id, one.data, one.ordered))
        if not queues:
            then(None)
            return
        done = _Countdown(len(queues), then)
        for name, (recipient, messages) in queues.items():
            self._session.post_many(
                name, recipient, messages, partial(_told_session, done) if is_session(name) else done
            )
        self._failpoints.reach("mid_publish")

    def send_one(self, one: Outgoing) -> None:
        """Send; nobody needs to know what becomes of it."""
        self._session.post(one.queue, one.recipient, one.message_id, one.data, _ignore, ordered=one.ordered)


def _told_session(done: Then, error: BaseException | None) -> None:
    """A session whose queue does not take the reply asks again for what is on record; the message need not come again,
    and what came with it not wait."""
    if isinstance(error, BrokerError) and not isinstance(error, BrokerUnavailableError):
        logger.info("A session's queue did not take its reply: %s", error)
        error = None
    done(error)


def _ignore(_error: BaseException | None) -> None:
    return None


class _Countdown:
    """Calls ``then`` when it was called ``left`` times."""

    __slots__ = ("_left", "_lock", "_problem", "_then")

    def __init__(self, left: int, then: Then) -> None:
        self._left = left
        self._then = then
        self._problem: BaseException | None = None
        self._lock = threading.Lock()

    def __call__(self, error: BaseException | None) -> None:
        if isinstance(error, UnroutableError | KeyRetiredError):  # Users who have ended do not come back either.
            logger.info("Nobody is there any more: %s", error)
            error = None
        with self._lock:
            self._problem = self._problem or error
            self._left -= 1
            last = self._left == 0
        if last:
            self._then(self._problem)
