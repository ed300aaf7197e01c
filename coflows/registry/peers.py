"""What a service keeps of others: peers, which dial it, and links, which it dials."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from coflows.errors import AccessDeniedError
from coflows.registry.database import Database
from coflows.registry.page import Cursor
from coflows.registry.requests import Asker
from coflows.registry.sharing import gives_way


class Peer(NamedTuple):
    """A service that dials this one; up to where its log was taken in."""

    user_id: str
    url: str
    connected: bool
    log: str
    cursor: Cursor
    organization: str
    role: str
    seen: float


class LinkState(NamedTuple):
    """A service that this one dials: who it was last, and up to where its log was pulled."""

    url: str
    user_id: str = ""
    log: str = ""
    cursor: Cursor = Cursor()
    wanted: bool = True


_PEER = "user_id, url, connected, log, records, beats, organization, role, seen"


class Peers:
    """The tables of both. What writes takes the connection of a transaction."""

    def __init__(self, db: Database) -> None:
        self._db = db

    # -- peers -------------------------------------------------------------------------------------------------

    def find(self, user_id: str, url: str) -> Peer | None:
        """A peer that is connected, or was."""
        row = self._db.read().execute(f"SELECT {_PEER} FROM peers WHERE user_id=? AND url=?", (user_id, url)).fetchone()
        return None if row is None else _peer(row)

    def connected(self) -> list[Peer]:
        """The peers that are connected, by URL."""
        rows = self._db.read().execute(f"SELECT {_PEER} FROM peers WHERE connected=1 ORDER BY url, user_id")
        return [_peer(row) for row in rows]

    def use_number(self, db: sqlite3.Connection, asker: Asker, now: float, most: int) -> None:
        """Take the number of a request; raises AccessDeniedError when it, or a later one, was used, or when it is one
        more peer than ``most`` and none of another network gives way."""
        row = db.execute("SELECT number FROM peers WHERE user_id=? AND url=?", (asker.user_id, asker.url)).fetchone()
        if row is not None and asker.number <= row[0]:
            raise AccessDeniedError(
                f"Request {asker.number} of {asker.url or asker.user_id} comes again, or too late.",
                hint=f"Numbers grow; the last one was {row[0]}. Is the clock right?",
            )
        if row is None and db.execute("SELECT count(*) FROM peers").fetchone()[0] >= most:
            self._make_room(db, asker.place, most)
        db.execute(
            "INSERT INTO peers VALUES (?, ?, ?, 0, '', 0, 0, '', '', ?, ?) ON CONFLICT (user_id, url) DO UPDATE "
            "SET number=excluded.number, seen=excluded.seen, place=excluded.place",
            (asker.user_id, asker.url, asker.number, now, asker.place),
        )

    def _make_room(self, db: sqlite3.Connection, newcomer: str, most: int) -> None:
        """Forget a peer of the network that has most, one that is not connected first, or who was there last."""
        held = dict(db.execute("SELECT place, count(*) FROM peers WHERE url<>'' GROUP BY place").fetchall())
        place = gives_way(held, newcomer, 1)
        if place is None:
            raise AccessDeniedError(f"There are {most} peers already.", hint="Connect to another registry.")
        db.execute(
            "DELETE FROM peers WHERE (user_id, url) IN (SELECT user_id, url FROM peers WHERE place=? AND url<>'' "
            "ORDER BY connected, number DESC LIMIT 1)",
            (place,),
        )

    def connect(self, db: sqlite3.Connection, asker: Asker, organization: str, role: str, fresh: bool) -> Peer:
        """Note that a peer is connected, and what it is; with ``fresh``, its log is taken in from the start."""
        who = (asker.user_id, asker.url)
        db.execute(
            "UPDATE peers SET connected=1, organization=?, role=? WHERE user_id=? AND url=?", (organization, role, *who)
        )
        if fresh:
            self.move(db, *who, "", Cursor())
        return _peer(db.execute(f"SELECT {_PEER} FROM peers WHERE user_id=? AND url=?", who).fetchone())

    def disconnect(self, db: sqlite3.Connection, user_id: str, url: str) -> bool:
        """Note that a peer left; False when it was not there. Its number stays, so that it cannot be replayed."""
        done = db.execute(
            "UPDATE peers SET connected=0, log='', records=0, beats=0 WHERE user_id=? AND url=? AND connected=1",
            (user_id, url),
        )
        return bool(done.rowcount)

    def move(self, db: sqlite3.Connection, user_id: str, url: str, log: str, cursor: Cursor) -> None:
        """Note up to where a peer's log was taken in."""
        db.execute(
            "UPDATE peers SET log=?, records=?, beats=? WHERE user_id=? AND url=?",
            (log, cursor.records, cursor.beats, user_id, url),
        )

    def forget(self, db: sqlite3.Connection, before: float) -> None:
        """Delete peers that have not asked for anything since. Who signed their last request has no use of it: what it
        said is older than what would be taken; but not so what the owner himself (url "") commanded."""
        db.execute("DELETE FROM peers WHERE seen<? AND url<>''", (before,))

    # -- links -------------------------------------------------------------------------------------------------

    def links(self) -> list[LinkState]:
        """All links that are kept."""
        rows = self._db.read().execute("SELECT url, user_id, log, records, beats, wanted FROM links ORDER BY url")
        return [
            LinkState(url, user_id, log, Cursor(records=records, beats=beats), bool(wanted))
            for url, user_id, log, records, beats, wanted in rows
        ]

    def keep_link(self, db: sqlite3.Connection, link: LinkState) -> None:
        """Keep what is known of a link."""
        values = (link.url, link.user_id, link.log, link.cursor.records, link.cursor.beats, link.wanted)
        db.execute("INSERT OR REPLACE INTO links VALUES (?, ?, ?, ?, ?, ?)", values)


def _peer(row: tuple) -> Peer:  # type: ignore[type-arg]
    user_id, url, connected, log, records, beats, organization, role, seen = row
    cursor = Cursor(records=records, beats=beats)
    return Peer(user_id, url, bool(connected), log, cursor, organization, role, seen)
