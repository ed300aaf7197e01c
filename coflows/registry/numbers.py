"""The numbers of a service's requests: each greater than all before, also than those before a restart."""

from __future__ import annotations

import sqlite3
import threading
import time

from coflows.registry.database import Database

_AHEAD = 100_000
"""How many may be given out between two times that the last one is kept, and a restart after that."""


class Numbers:
    """Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._last = int(str(db.fact("number", 0)))
        self._lock = threading.Lock()

    def next(self) -> int:
        """One more; the milliseconds of the clock, unless that went back or too many were asked for."""
        with self._lock:
            self._last = max(int(time.time() * 1000), self._last + 1)
            return self._last

    def keep(self, db: sqlite3.Connection) -> None:
        """Remember up to where numbers may be used."""
        with self._lock:
            last = self._last
        if last:
            db.execute("INSERT OR REPLACE INTO facts VALUES ('number', ?)", (last + _AHEAD,))
