"""Who waits for which reply; asks again for what does not come, and sends again what never arrived."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field

from coflows.errors import BrokerUnavailableError
from coflows.model.wire import Reply

logger = logging.getLogger(__name__)

FIRST_LOOK = 10.0
LONGEST_LOOK = 300.0
"""Seconds after which a reply that has not come is asked for; the time doubles up to the longest."""
TICK = 1.0


@dataclass(slots=True)
class Inquiry:
    """How to go after a missing reply: ``ask`` whether there is one, ``resend`` the message when it never came (None
    when this session does not have it)."""

    ask: Callable[[], None]
    resend: Callable[[], None] | None = None
    first: float = FIRST_LOOK


@dataclass(slots=True)
class _Waiter:
    sender: str
    reply: Future[Reply]
    inquiry: Inquiry | None = None
    delay: float = FIRST_LOOK
    due: float = field(default=0.0)


class Waiting:
    """The open calls of one session. Thread-safe."""

    def __init__(self) -> None:
        self._waiters: dict[str, _Waiter] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, message_id: str, sender: str) -> Future[Reply]:
        """A future of ``sender``'s reply to ``message_id``. Several may wait for one reply."""
        with self._lock:
            waiter = self._waiters.get(message_id)
            if waiter is None or waiter.reply.done():
                waiter = self._waiters[message_id] = _Waiter(sender, Future())
                waiter.reply.add_done_callback(lambda reply: self._forget(message_id, reply))
            return waiter.reply

    def go_after(self, message_id: str, inquiry: Inquiry) -> None:
        """Ask for the reply to ``message_id`` when it does not come."""
        waiter = self._waiters.get(message_id)
        if waiter is not None and waiter.inquiry is None:
            waiter.delay = inquiry.first
            waiter.due = time.monotonic() + inquiry.first
            waiter.inquiry = inquiry
            if self._thread is None:
                self._start()

    def arrived(self, sender: str, reply: Reply) -> None:
        """A reply came; only the one who was asked may answer."""
        waiter = self._waiters.get(reply.answers)
        if waiter is None:
            logger.debug("Nobody waits for the reply to %s.", reply.answers)
        elif waiter.sender != sender:
            logger.warning("Dropped a forged reply to %s: it came from another user.", reply.answers)
        elif not reply.pending:
            resolve(waiter.reply, reply)
        elif reply.unknown and waiter.inquiry is not None and waiter.inquiry.resend is not None:
            logger.warning("Message %s never arrived; it is sent again.", reply.answers)
            waiter.inquiry.resend()

    def close(self) -> None:
        """Fail everybody who waits. Idempotent."""
        self._closed.set()
        with self._lock:
            waiting = [waiter.reply for waiter in self._waiters.values()]
        for reply in waiting:
            resolve(reply, BrokerUnavailableError("The session was closed.", hint="Reopen the future by its key."))

    def _forget(self, message_id: str, reply: Future[Reply]) -> None:
        waiter = self._waiters.get(message_id)
        if waiter is not None and waiter.reply is reply:
            self._waiters.pop(message_id, None)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="coflows-inquire", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        while not self._closed.wait(TICK):
            now = time.monotonic()
            with self._lock:
                late = [one for one in self._waiters.values() if one.inquiry is not None and one.due <= now]
            for waiter in late:
                waiter.delay = min(2 * waiter.delay, LONGEST_LOOK)
                waiter.due = now + waiter.delay
                try:
                    if waiter.inquiry is not None:
                        waiter.inquiry.ask()
                except Exception as error:  # the broker may be away; the next time it may not
                    logger.debug("Could not ask for a reply: %s", error)


def resolve(reply: Future[Reply], outcome: Reply | BaseException) -> None:
    """Resolve ``reply`` unless it has ended."""
    try:
        if isinstance(outcome, BaseException):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)
    except InvalidStateError:
        logger.debug("A reply came after its future had ended.")
