"""Who waits for which reply; asks again for what does not come, and sends again what never arrived."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError

from coflows.broker.topology import Route
from coflows.errors import BrokerUnavailableError
from coflows.lines import Place
from coflows.model.calls import Reply
from coflows.wakers import Wakers

logger = logging.getLogger(__name__)

FIRST_LOOK = 10.0
LONGEST_LOOK = 300.0
"""Seconds after which a reply that has not come is asked for; the time doubles up to the longest."""
TICK = 1.0


class PendingReply(Future[Reply]):
    """The reply to come to one message, which only ``sender`` may give. With a ``route`` it is gone after when it does
    not come; with ``data`` (the message) and its ``place`` the message is sent again when it never arrived."""

    def __init__(self, message_id: str, sender: str, wakers: Wakers) -> None:
        super().__init__()
        self._wakers = wakers
        self.message_id = message_id
        self.sender = sender
        self.route: Route | None = None
        self.data: bytes | None = None
        self.place: Place | None = None
        self.delay = FIRST_LOOK
        self.due = 0.0

    async def wait_async(self) -> None:
        """Wait until it has ended, without blocking the event loop."""
        if self.done():
            return
        import asyncio  # Costs as much as all of coflows, and only coroutines need it.

        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        wakers = self._wakers  # Not this reply, which keeps the callback.
        self.add_done_callback(lambda _reply: wakers.wake(loop, waiter))
        await waiter


class Waiting:
    """The open calls of one session: ``ask`` asks the flow for a reply that does not come, ``resend`` sends a message
    again that never arrived. Thread-safe."""

    def __init__(self, ask: Callable[[PendingReply], None], resend: Callable[[PendingReply], None]) -> None:
        self._ask = ask
        self._resend = resend
        self._wakers = Wakers()
        self._pending: dict[str, PendingReply] = {}
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def expect(self, message_id: str, sender: str) -> PendingReply:
        """The reply of ``sender``'s to ``message_id``. Several may wait for one reply."""
        with self._lock:
            if self._closed.is_set():
                raise _closed_error()
            pending = self._pending.get(message_id)
            if pending is None or pending.done():
                pending = self._pending[message_id] = PendingReply(message_id, sender, self._wakers)
            return pending

    def go_after(self, pending: PendingReply, route: Route, first: float = FIRST_LOOK) -> None:
        """Ask for the reply when it has not come after ``first`` seconds."""
        if pending.route is None:
            pending.delay = first
            pending.due = time.monotonic() + first
            pending.route = route
            if self._thread is None:
                self._start()

    def arrived(self, sender: str, reply: Reply) -> None:
        """A reply came; only the one who was asked may answer."""
        pending = self._pending.get(reply.answers)
        if pending is None:
            logger.debug("Nobody waits for the reply to %s.", reply.answers)
        elif pending.sender != sender:
            logger.warning("Dropped a forged reply to %s: it came from another user.", reply.answers)
        elif not reply.pending:
            self.settle(pending, reply)
        elif reply.unknown and pending.data is not None:
            logger.warning("Message %s never arrived; it is sent again.", reply.answers)
            pending.delay, pending.due = FIRST_LOOK, time.monotonic() + FIRST_LOOK
            self._resend(pending)

    def settle(self, pending: PendingReply, outcome: Reply | BaseException) -> None:
        """The wait is over, unless it was before."""
        self.forget(pending)
        try:
            if isinstance(outcome, BaseException):
                pending.set_exception(outcome)
            else:
                pending.set_result(outcome)
        except InvalidStateError:
            logger.debug("A reply came after its future had ended.")

    def forget(self, pending: PendingReply) -> None:
        """Nobody waits any more."""
        if self._pending.get(pending.message_id) is pending:
            self._pending.pop(pending.message_id, None)

    def close(self) -> None:
        """Fail everybody who waits. Idempotent."""
        with self._lock:
            self._closed.set()
            left = list(self._pending.values())
        for pending in left:
            self.settle(pending, _closed_error())

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._look, name="coflows-inquire", daemon=True)
                self._thread.start()

    def _look(self) -> None:
        while not self._closed.wait(TICK):
            now = time.monotonic()
            for pending in [one for one in list(self._pending.values()) if one.route is not None and one.due <= now]:
                if pending.done():
                    self.forget(pending)
                    continue
                pending.delay = min(2 * pending.delay, LONGEST_LOOK)
                pending.due = now + pending.delay
                try:
                    self._ask(pending)
                except Exception as error:  # the broker may be away; the next time it may not
                    logger.debug("Could not ask for a reply: %s", error)


def _closed_error() -> BrokerUnavailableError:
    return BrokerUnavailableError("The session was closed.", hint="Reopen the future by its key.")
