"""The nodes that a service knows, with their flows: its own among them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from coflows.registry.database import Database, next_log
from coflows.registry.entry import FlowEntry, flow_id, page_of
from coflows.registry.judging import GONE, OFFLINE, ONLINE, Known, Times, state_of
from coflows.registry.page import Offer, SignedText
from coflows.registry.record import Beat, Record
from coflows.registry.signed import Signed

_CHUNK = 500
PENDING_SECONDS = 3600.0
_UNUSED = "NOT EXISTS (SELECT 1 FROM flows WHERE flows.digest=entries.digest)"
_INSERT_FLOW = (
    "INSERT OR IGNORE INTO flows (node, digest, id, name, organization, author, url, node_url, user_id, flow_endpoint, "
    "description, tags) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


_VIA = f"CASE WHEN nodes.state='{ONLINE}' AND nodes.url<>{{0}} THEN nodes.via ELSE {{0}} END"
"""Who passes a node on stays who does while it is there: whoever is quicker could else let go of it by leaving."""
_PLACE = f"CASE WHEN nodes.state='{ONLINE}' AND nodes.url<>{{0}} THEN nodes.place ELSE {{1}} END"
_UPDATED = {
    "via": f"via={_VIA.format('excluded.via')}",
    "place": f"place={_PLACE.format('excluded.via', 'excluded.place')}",
}


@dataclass(frozen=True, slots=True)
class Claim:
    """What was said of a node and found to be signed by its user. ``record`` is None when it is known."""

    record: Record | None
    signed_record: Signed | None
    beat: Beat
    signed_beat: Signed
    seen: float
    via: str
    """The URL of the peer that passed it on; "" for the service's own node."""
    place: str = ""
    """The network that the peer is in, or its URL when this service dialled it."""


class NodeListed(NamedTuple):
    """A node, as the map shows it."""

    url: str
    organization: str
    user_id: str
    registry: bool
    feed: bool
    state: str
    flows: int
    connect: list[str]


class Nodes:
    """The table of nodes. What writes takes the connection of a transaction."""

    def __init__(self, db: Database, times: Times) -> None:
        self._db = db
        self.times = times

    # -- reading -----------------------------------------------------------------------------------------------

    def known(self, user_id: str, url: str, db: sqlite3.Connection | None = None) -> Known | None:
        """What is known of a node."""
        row = (
            (db or self._db.read())
            .execute(
                "SELECT sequence, beat, seen, state, withdrawn FROM nodes WHERE user_id=? AND url=?", (user_id, url)
            )
            .fetchone()
        )
        return None if row is None else Known(row[0], row[1], row[2], row[3], bool(row[4]))

    def holder(self, url: str) -> str | None:
        """The user whose node is at the URL: of those there, the first."""
        row = self._db.read().execute(
            "SELECT user_id FROM nodes WHERE url=? AND state<>? ORDER BY node", (url, GONE)
        ).fetchone()  # fmt: skip
        return None if row is None else str(row[0])

    def count(self, user_id: str | None = None, db: sqlite3.Connection | None = None) -> int:
        """How many nodes are kept, of a user or of all."""
        where, values = ("", ()) if user_id is None else (" WHERE user_id=?", (user_id,))
        return int((db or self._db.read()).execute(f"SELECT count(*) FROM nodes{where}", values).fetchone()[0])

    def held(self, db: sqlite3.Connection, what: str) -> dict[str, int]:
        """How many nodes, or bytes, each place has here; the service's own node aside."""
        return dict(db.execute(f"SELECT place, {what} FROM nodes WHERE own=0 GROUP BY place").fetchall())

    def grows(self, db: sqlite3.Connection, claim: Claim) -> int:
        """By how many bytes what is kept grows with a record."""
        row = db.execute(
            "SELECT bytes FROM nodes WHERE user_id=? AND url=?", (claim.beat.user_id, claim.beat.url)
        ).fetchone()
        return self._bytes(db, claim) - (row[0] if row else 0)

    def _bytes(self, db: sqlite3.Connection, claim: Claim) -> int:
        """Those of a record and its entries. What several nodes say is counted for each."""
        assert claim.record is not None and claim.signed_record is not None
        sizes = 0
        for start in range(0, len(claim.record.flows), _CHUNK):
            part = claim.record.flows[start : start + _CHUNK]
            sql = f"SELECT sum(length(text)) FROM entries WHERE digest IN ({','.join('?' * len(part))})"
            sizes += db.execute(sql, part).fetchone()[0] or 0
        return sizes + len(claim.signed_record.text)

    def listed(self) -> list[NodeListed]:
        """All nodes that are not gone, by URL."""
        rows = self._db.read().execute(
            "SELECT url, organization, user_id, registry, feed, state, flows, connect FROM nodes WHERE state<>? "
            "ORDER BY url, user_id",
            (GONE,),
        )
        return [
            NodeListed(url, organization, user_id, bool(registry), bool(feed), state, flows, json.loads(connect))
            for url, organization, user_id, registry, feed, state, flows, connect in rows
        ]

    def own_record(self, db: sqlite3.Connection) -> Record | None:
        """The record of the service's own node, unless it has to be signed anew."""
        row = db.execute("SELECT record FROM nodes WHERE own=1 AND sequence>0").fetchone()
        return None if row is None else Record.model_validate_json(row[0])

    def offer(self, user_id: str, url: str) -> Offer | None:
        """What a node said last of itself, as it was signed."""
        columns = "record, record_signature, beat_text, beat_signature"
        sql = f"SELECT {columns} FROM nodes WHERE user_id=? AND url=?"
        row = self._db.read().execute(sql, (user_id, url)).fetchone()
        if row is None:
            return None
        return Offer(record=SignedText(text=row[0], signature=row[1]), beat=SignedText(text=row[2], signature=row[3]))

    def missing(self, db: sqlite3.Connection, digests: Iterable[str]) -> list[str]:
        """Those of the entries that are not here, each once."""
        sql = "SELECT 1 FROM entries WHERE digest=?"
        return [one for one in dict.fromkeys(digests) if db.execute(sql, (one,)).fetchone() is None]

    def entries(self, digests: Sequence[str], db: sqlite3.Connection | None = None) -> dict[str, str]:
        """The texts of those entries that are here."""
        found: dict[str, str] = {}
        for start in range(0, len(digests), _CHUNK):
            part = digests[start : start + _CHUNK]
            marks = ",".join("?" * len(part))
            sql = f"SELECT digest, text FROM entries WHERE digest IN ({marks})"
            found.update((db or self._db.read()).execute(sql, part).fetchall())
        return found

    # -- writing -----------------------------------------------------------------------------------------------

    def keep_entries(self, db: sqlite3.Connection, texts: Mapping[str, str], now: float) -> None:
        """Keep texts of entries until flows have them, or for PENDING_SECONDS: who sends ever more fills no disk."""
        since = now - 2 * self.times.ttl + PENDING_SECONDS
        db.executemany(
            "INSERT INTO entries VALUES (?, ?, ?) ON CONFLICT (digest) DO UPDATE SET since=max(since, excluded.since)",
            [(digest, text, since) for digest, text in texts.items()],
        )

    def take_record(self, db: sqlite3.Connection, claim: Claim) -> None:
        """Put a node's record in the place of the one before, and list its flows. Its entries must be here."""
        record, signed = claim.record, claim.signed_record
        assert record is not None and signed is not None
        log = next_log(db)
        known = self.known(record.user_id, record.url, db)
        seen = claim.seen if known is None else max(known.seen, claim.seen)
        state = GONE if record.withdrawn else self._state(seen)
        values = {
            "own": not claim.via,
            "state": state,
            "sequence": record.sequence,
            "record_log": log,
            "beat_log": log,
            "record": signed.text,
            "record_signature": signed.signature,
            "beat": claim.beat.beat,
            "beat_text": claim.signed_beat.text,
            "beat_signature": claim.signed_beat.signature,
            "seen": seen,
            "via": claim.via,
            "place": claim.place,
            "bytes": self._bytes(db, claim),
            "withdrawn": record.withdrawn,
            "flows": len(record.flows),
            "broker": record.broker,
            "organization": record.organization,
            "registry": record.registry,
            "feed": record.feed,
            "connect": json.dumps(record.connect),
        }
        names = [*values, "user_id", "url"]
        updated = ", ".join(_UPDATED.get(name, f"{name}=excluded.{name}") for name in values)
        node, before = db.execute(
            f"INSERT INTO nodes ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) ON CONFLICT (user_id, url) "
            f"DO UPDATE SET {updated} RETURNING node, "
            f"(SELECT organization FROM flows WHERE flows.node=nodes.node LIMIT 1)",
            [*values.values(), record.user_id, record.url],
        ).fetchone()
        moved = before is not None and before != record.organization.casefold()
        self._list(db, int(node), record, keep=not moved)

    def take_beat(self, db: sqlite3.Connection, claim: Claim) -> bool:
        """Note that a known node is there; True when its flows are listed again for it."""
        beat, signed = claim.beat, claim.signed_beat
        row = db.execute("SELECT node, state, record, record_log, seen FROM nodes WHERE user_id=? AND url=?",
                         (beat.user_id, beat.url)).fetchone()  # fmt: skip
        node, state, text, record_log, before = row
        log, seen = next_log(db), max(before, claim.seen)
        db.execute(
            f"UPDATE nodes SET beat=?, beat_text=?, beat_signature=?, beat_log=?, seen=?, state=?, record_log=?, "
            f"via={_VIA.format('?8')}, place={_PLACE.format('?8', '?9')} WHERE node=?10",
            (beat.beat, signed.text, signed.signature, log, seen, self._state(seen),
             log if state == GONE else record_log, claim.via, claim.place, node),
        )  # fmt: skip
        if state == GONE:
            self._list(db, node, Record.model_validate_json(text), keep=False)
        return bool(state == GONE)

    def _state(self, seen: float) -> str:
        """Passed on late, a beat may be that of a node that is silent since."""
        return OFFLINE if state_of(seen, time.time(), self.times) != ONLINE else ONLINE

    def _list(self, db: sqlite3.Connection, node: int, record: Record, keep: bool) -> None:
        """Make the flows of a node those of its record; with ``keep``, those that are listed already may stay."""
        offered = set() if record.withdrawn else set(record.flows)
        listed = dict(db.execute("SELECT digest, flow FROM flows WHERE node=?", (node,)).fetchall())
        stay = offered & listed.keys() if keep else set()
        db.executemany("DELETE FROM flows WHERE flow=?", [(listed[one],) for one in listed.keys() - stay])
        for digest, text in self.entries([one for one in record.flows if one in offered - stay], db).items():
            entry = FlowEntry.model_validate_json(text)
            known_as = flow_id(record.user_id, record.url, entry.key)
            folded = (
                *(entry.name, record.organization, entry.author, entry.url or page_of(record.url, known_as)),
                *(record.url, record.user_id, entry.flow_endpoint or "", entry.description, "\n".join(entry.tags)),
            )
            put = db.execute(_INSERT_FLOW, (node, digest, known_as, *(one.casefold() for one in folded)))
            if put.rowcount < 1:
                continue  # Two flows of a node under one key: the first one has it.
            flow = put.lastrowid
            db.executemany(
                "INSERT OR IGNORE INTO tags VALUES (?, ?, ?)", [(tag.casefold(), flow, tag) for tag in entry.tags]
            )
        db.execute("UPDATE nodes SET flows=(SELECT count(*) FROM flows WHERE node=?1) WHERE node=?1", (node,))

    def outdate(self, db: sqlite3.Connection) -> None:
        """Have the own record signed anew."""
        db.execute("UPDATE nodes SET sequence=0 WHERE own=1")

    def disown(self, db: sqlite3.Connection, user_id: str, url: str) -> None:
        """Forget own nodes of before, which had another URL or user."""
        found = db.execute(
            "SELECT node FROM nodes WHERE own=1 AND NOT (user_id=? AND url=?)", (user_id, url)
        ).fetchall()
        db.executemany("DELETE FROM flows WHERE node=?", found)
        db.executemany("DELETE FROM nodes WHERE node=?", found)

    def drop(self, db: sqlite3.Connection, via: str, now: float) -> int:
        """Let go of all nodes that this peer passed on, but for those that are connected themselves. They come back by
        a new beat."""
        found = db.execute(
            "SELECT node FROM nodes WHERE via=? AND state<>? AND own=0 AND NOT EXISTS (SELECT 1 FROM peers WHERE "
            "peers.user_id=nodes.user_id AND peers.url=nodes.url AND connected=1 AND peers.url<>?1)",
            (via, GONE),
        )
        return self._let_go(db, [node for (node,) in found.fetchall()], now)

    def vacate(self, db: sqlite3.Connection, url: str, user_id: str, now: float) -> int:
        """Let go of nodes that other users claim to have at the URL of this one's."""
        found = db.execute("SELECT node FROM nodes WHERE url=? AND user_id<>? AND state<>?", (url, user_id, GONE))
        return self._let_go(db, [node for (node,) in found.fetchall()], now)

    def sweep(self, db: sqlite3.Connection, now: float) -> bool:
        """Mark who is silent as offline, let go of who has been for too long, and forget them after as long again. True
        when flows are listed no more."""
        offline, gone = now - self.times.offline_after, now - self.times.ttl
        db.execute("UPDATE nodes SET state=? WHERE state=? AND seen<? AND own=0", (OFFLINE, ONLINE, offline))
        found = db.execute("SELECT node FROM nodes WHERE state=? AND seen<? AND own=0", (OFFLINE, gone))
        changed = self._let_go(db, [node for (node,) in found.fetchall()], now)
        db.execute("DELETE FROM nodes WHERE state=? AND seen<?", (GONE, now - 2 * self.times.ttl))
        return bool(changed)

    def evict(self, db: sqlite3.Connection, place: str, user_id: str, url: str) -> bool:
        """Forget the newest node of a place with all that it said, those that are silent first; not the one named."""
        row = db.execute(
            "SELECT node FROM nodes WHERE own=0 AND place=? AND NOT (user_id=? AND url=?) ORDER BY state=?, node DESC",
            (place, user_id, url, ONLINE),
        ).fetchone()
        if row is None:
            return False
        digests = db.execute("SELECT digest FROM flows WHERE node=?", row).fetchall()
        db.execute("DELETE FROM flows WHERE node=?", row)
        db.execute("DELETE FROM nodes WHERE node=?", row)
        db.executemany(f"DELETE FROM entries WHERE digest=? AND {_UNUSED}", digests)
        return True

    def forget_entries(self, db: sqlite3.Connection, now: float) -> None:
        """Delete texts that no flow has, once no node can come back that had them."""
        db.execute(f"DELETE FROM entries WHERE since<? AND {_UNUSED}", (now - 2 * self.times.ttl,))

    def forget_pending(self, db: sqlite3.Connection, now: float) -> None:
        """Delete texts that no flow has had yet."""
        self.forget_entries(db, now + PENDING_SECONDS + 1)

    def pause(self, db: sqlite3.Connection, seconds: float) -> None:
        """Do not count a time in which this service itself was away."""
        db.execute("UPDATE nodes SET seen=seen+?", (seconds,))

    def _let_go(self, db: sqlite3.Connection, nodes: list[int], now: float) -> int:
        one = [(node,) for node in nodes]
        db.executemany("UPDATE nodes SET state=? WHERE node=?", [(GONE, node) for node in nodes])
        db.executemany(
            "UPDATE entries SET since=? WHERE digest IN (SELECT digest FROM flows WHERE node=?)",
            [(now, node) for node in nodes],
        )
        db.executemany("DELETE FROM flows WHERE node=?", one)
        return len(nodes)
