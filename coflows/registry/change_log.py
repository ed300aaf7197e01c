"""The log of a service's changes, by number: each node is in it twice, where its record and its beat changed last."""

from __future__ import annotations

from typing import Any

from coflows.registry.database import Database
from coflows.registry.judging import GONE
from coflows.registry.page import MAX_BEATS, MAX_PAGE_BYTES, MAX_RECORDS, Cursor, Offer, Page, SignedText

Row = tuple[Any, ...]
_COLUMNS = "record, record_signature, record_log, beat_text, beat_signature, beat_log, seen"
_PASSED_ON = f"(withdrawn=1 OR state<>'{GONE}')"


class ChangeLog:
    """Thread-safe. Who reads a page after another until there is no more has all that changed, in whatever order it
    changed meanwhile: what changes again moves to the end."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def id(self) -> str:
        """The log's name: another one after the cache was lost, so that cursors of the old one do not fit."""
        return str(self._db.fact("log"))

    def page(self, after: Cursor, own_only: bool, now: float) -> Page:
        """What changed after the cursor; with ``own_only``, of the service's own node. Records come first: a beat says
        nothing to who does not know the record."""
        own = " AND own=1" if own_only else ""
        with self._db.snapshot() as db:
            head = int((db.execute("SELECT value FROM facts WHERE name='head'").fetchone() or [0])[0])
            rows = db.execute(
                f"SELECT {_COLUMNS} FROM nodes WHERE record_log>? AND {_PASSED_ON}{own} ORDER BY record_log LIMIT ?",
                (after.records, MAX_RECORDS + 1),
            ).fetchall()
            beats = [] if len(rows) > MAX_RECORDS else db.execute(
                f"SELECT {_COLUMNS} FROM nodes WHERE beat_log>? AND record_log<=? AND {_PASSED_ON}{own} "
                f"ORDER BY beat_log LIMIT ?",
                (after.beats, after.records, MAX_BEATS + 1),
            ).fetchall()  # fmt: skip
        kept = _within(rows[:MAX_RECORDS])
        all_records, all_beats = len(kept) == len(rows), len(beats) <= MAX_BEATS
        offers = [
            Offer(record=SignedText(text=row[0], signature=row[1]), beat=_beat(row), age=max(now - row[6], 0.0))
            for row in kept
        ]
        if all_records:
            offers += [Offer(beat=_beat(row), age=max(now - row[6], 0.0)) for row in beats[:MAX_BEATS]]
        upto = Cursor(
            records=head if all_records else kept[-1][2],
            beats=after.beats if not all_records else head if all_beats else beats[MAX_BEATS - 1][5],
        )
        return Page(log=self.id, after=after, upto=upto, more=not (all_records and all_beats), offers=offers)

    def own_offer(self) -> Offer:
        """What the service says of its own node."""
        row = self._db.read().execute(f"SELECT {_COLUMNS} FROM nodes WHERE own=1").fetchone()
        return Offer(record=SignedText(text=row[0], signature=row[1]), beat=_beat(row))


def _within(rows: list[Row]) -> list[Row]:
    """As many rows as a page's bytes allow, and at least one."""
    kept: list[Row] = []
    size = 0
    for row in rows:
        size += len(row[0])
        if kept and size > MAX_PAGE_BYTES:
            break
        kept.append(row)
    return kept


def _beat(row: Row) -> SignedText:
    return SignedText(text=row[3], signature=row[4])
