"""Fires the timers of a dispatch point that are due, whichever worker set them."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress

from coflows.broker.topology import dispatch_queue
from coflows.dispatch.timers import Fired, is_due, place_of, review
from coflows.errors import CoflowsError, ConflictError
from coflows.model.calls import Call
from coflows.model.layout import due_prefix
from coflows.session import Session
from coflows.store.base import Entry, Store

logger = logging.getLogger(__name__)

LOOK = 1.0
"""Seconds after which it looks for timers that another worker has set, and may not be there to fire."""
PAGE, PAGES = 256, 16
"""Timers that are read at once, and how often in one look: where more are due, the next look goes on."""


class Clock:
    """One for each worker of a point; of several that see a timer due, one fires it. Sleeps until the next is due.
    Thread-safe."""

    def __init__(self, session: Session, store: Store, dispatch_point: str) -> None:
        self._session = session
        self._store = store
        self._point = dispatch_point
        self._next = 0.0
        self._place: str | None = None
        """Where the next look goes on; None: at the first timer."""
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="coflows-clock", daemon=True)
        self._thread.start()

    def expect(self, due: float) -> None:
        """A timer was set that is due then (seconds since the epoch)."""
        with self._changed:
            if due < self._next:
                self._next = due
                self._changed.notify()

    def close(self) -> None:
        """Fire no more. Idempotent."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._closed and (seconds := self._next - time.time()) > 0:
                    self._changed.wait(seconds)
                if self._closed:
                    return
                self._next = time.time() + LOOK
            try:
                found = self._look()
            except CoflowsError as error:
                logger.warning("Could not look after timers; trying again: %s", error)
                continue
            if found is not None:
                self.expect(found)

    def _look(self) -> float | None:
        """Fire what is due. Timers whose instances do not come to work them off stay at the front; those behind them
        fire all the same."""
        now, times, fired = time.time(), list[float](), False
        for _ in range(PAGES):
            page = self._store.scan(due_prefix(self._point), start=self._place, limit=PAGE)
            entries = {entry.key: entry for entry in page}
            found = review(((key, Fired.decode(entry.value)) for key, entry in entries.items()), now)
            for key in found.fire:
                self._fire(entries[key], now)
            fired = fired or bool(found.fire)
            if found.next is not None:
                times.append(found.next)
            if len(page) < PAGE or not is_due(page[-1].key, now):
                self._place = None
                return min(times, default=None)
            self._place = f"{page[-1].key}\x01"
        return now if fired else None

    def _fire(self, entry: Entry, now: float) -> None:
        place = place_of(entry.key)
        assert place is not None
        data, _, chain = Fired.decode(entry.value)
        with suppress(ConflictError):  # Another worker fires it, or it was cancelled.
            self._store.commit({entry.key: Fired(data, now, chain).encode()}, conditions={entry.key: entry.version})
            call = Call(place.flow_id, data, place.due, place.flow_id, chain=chain)
            queue = dispatch_queue(self._session.user_id, self._point, place.partition).name
            self._session.post(queue, self._session.user_id, place.timer, self._session.encode(call), _sent)


def _sent(error: BaseException | None) -> None:
    if error is not None:
        logger.warning("A timer's message could not be sent; it is sent again later: %s", error)
