"""Forgets what no message can ask for any more: records of turns, orders, attempts and the like, page by page.

A message is worked off only while it is valid, so its record is needed no longer than that. A page is read, what is old
in it is deleted, and then the sweeper rests for a multiple of the time that took: a large store is gone through slowly,
and never at once. The workers of a store take turns at it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from coflows.codec.wire import encode
from coflows.endpoints import read
from coflows.errors import CoflowsError, ConflictError
from coflows.identity.sealing import LONGEST, SKEW
from coflows.model.layout import (
    ATTEMPTS,
    CALLS,
    CHARGED,
    DONE,
    GRANTED,
    GRANTS,
    ORDER,
    RELEASED,
    REPLIES,
    REVOKED,
    SPENT,
    SWEPT,
    WORKERS,
    done_key,
)
from coflows.store.base import ABSENT, Entry, Store

logger = logging.getLogger(__name__)

MARGIN = SKEW
"""Seconds that a record is kept beyond its time."""
PAGE = 100
SHARE = 0.02
"""Part of its time that a sweeper works while it goes through a store."""
ROUND = 3600.0
"""Seconds from the beginning of one round to that of the next, of whichever worker."""
OF_GRANTS = (GRANTS, GRANTED, SPENT, REVOKED)
DATED = (DONE, ORDER, ATTEMPTS, CALLS, CHARGED, RELEASED, WORKERS, *OF_GRANTS)


def is_old(prefix: str, record: Mapping[str, Any], now: float, ttl: float) -> bool:
    """Whether a dated record can be forgotten at ``now``, when messages are valid for ``ttl`` seconds. ``until`` in it
    is how long its message says it is valid: it was not taken when that was longer than LONGEST from then. A push call
    that nobody has answered goes after as long: the flow that was asked may wait for a person, or a timer."""
    if prefix in OF_GRANTS:  # A grant that has ended is refused without them.
        return bool(now > record["until"] + MARGIN)
    at = record["at"]
    if prefix == WORKERS:  # One that is alive says so every few seconds.
        return bool(now > at + MARGIN)
    if prefix == CALLS:
        return bool(now > at + LONGEST + MARGIN)
    until = min(record.get("until") or 0.0, at + LONGEST + SKEW)
    return bool(now > max(at + ttl, until) + MARGIN)


class Sweeper:
    """Sweeps one store from its own thread, between construction and ``close``."""

    def __init__(self, store: Store, ttl: float) -> None:
        self._store = store
        self._ttl = ttl
        self._places: list[tuple[str, str | None]] = []
        self._ending = threading.Event()
        threading.Thread(target=self._run, name="coflows-sweep", daemon=True).start()

    def close(self) -> None:
        """Stop after the page in hand. Idempotent."""
        self._ending.set()

    def _run(self) -> None:
        pause = 0.0
        while not self._ending.wait(pause):
            try:
                if not self._places and not begin_round(self._store, time.time()):
                    pause = ROUND / 10
                    continue
                self._places = self._places or [(prefix, None) for prefix in (*DATED, REPLIES)]
                pause = self._step()
            except CoflowsError as error:
                logger.warning("Could not sweep old records; trying again later: %s", error)
                pause = ROUND / 10
            except Exception:
                logger.exception("Sweeping old records failed; trying again later.")
                pause = ROUND / 10

    def _step(self) -> float:
        """One page; gives how long to rest."""
        begun = time.perf_counter()
        prefix, start = self._places.pop(0)
        last = sweep_page(self._store, prefix, start, time.time(), self._ttl)
        if last is not None:
            self._places.insert(0, (prefix, last))
        return (time.perf_counter() - begun) / SHARE


def begin_round(store: Store, now: float) -> bool:
    """Whether it is time for a round, and no other worker begins it."""
    entry = store.get(SWEPT)
    if entry is not None and 0 <= now - read(entry.value)["at"] < ROUND:
        return False
    try:
        store.commit({SWEPT: encode({"at": now})}, conditions={SWEPT: ABSENT if entry is None else entry.version})
    except ConflictError:
        return False
    return True


def sweep_page(store: Store, prefix: str, start: str | None, now: float, ttl: float) -> str | None:
    """Delete what is old among the next keys under ``prefix``; gives where to go on, None at the end."""
    page = store.scan(prefix, start=start, limit=PAGE)
    if prefix == REPLIES:
        old = _replies_without_turn(store, page)
    else:
        old = _outdated(prefix, _dated(store, page, now) if prefix == CALLS else page, now, ttl)
    _delete(store, old)
    return page[-1].key + "\x01" if len(page) == PAGE else None


def _dated(store: Store, page: Sequence[Entry], now: float) -> Sequence[Entry]:
    """Those that have a date. The others, written before calls had one, get that of now."""
    records = {entry: read(entry.value) for entry in page}
    for entry, record in records.items():
        if "at" not in record:
            with suppress(ConflictError):  # It was answered meanwhile.
                store.commit({entry.key: encode({**record, "at": now})}, conditions={entry.key: entry.version})
    return [entry for entry, record in records.items() if "at" in record]


def _outdated(prefix: str, page: Sequence[Entry], now: float, ttl: float) -> dict[str, int]:
    return {entry.key: entry.version for entry in page if is_old(prefix, read(entry.value), now, ttl)}


def _replies_without_turn(store: Store, page: Sequence[Entry]) -> dict[str, int]:
    """A reply is found by way of the turn that gave it, and was committed with that turn's record."""
    turns = {entry.key: done_key(entry.key.split(":")[1], entry.value.decode()) for entry in page}
    there = store.get_many(turns.values())
    return {entry.key: entry.version for entry in page if turns[entry.key] not in there}


def _delete(store: Store, old: dict[str, int]) -> None:
    """Delete them, save what was written again meanwhile."""
    while old:
        try:
            store.commit(deletes=old, conditions=old)
        except ConflictError as error:
            old = {key: version for key, version in old.items() if key not in error.keys}
        else:
            return
