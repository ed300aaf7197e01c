"""Lists flows: pages of them in an order, what a query finds, single ones, and how many of each kind there are."""

from __future__ import annotations

import sqlite3
import time
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from coflows.errors import QueryInvalidError
from coflows.registry.conditions import condition_of
from coflows.registry.database import Database
from coflows.registry.entry import FlowEntry
from coflows.registry.item import Item, item_of
from coflows.registry.judging import GONE
from coflows.registry.kept import Kept
from coflows.registry.order import Key
from coflows.registry.page import SignedText
from coflows.registry.proof import Proof
from coflows.registry.query import And, Not, Tree, asks_status
from coflows.registry.steps import Steps, read_steps

_COLUMNS = {"node": "node_url"}
MAX_COUNTED = 1000
QUERY_SECONDS = 5.0
_STEPS = 10_000
"""Of the database, between two looks at the clock."""

_SPARSE = 20
"""A query that finds less than one in so many finds few."""
_DENSE = 3
"""Where all that it finds is put in order, it is sorted rather than its index gone through unless it finds as many."""
_FEW = 200
"""Up to so many, it is quicker to find those of a page than all."""
_ITEM = (
    "SELECT f.id, e.text, n.organization, n.url, n.user_id, n.broker, n.state FROM flows f "
    "JOIN entries e ON e.digest=f.digest JOIN nodes n ON n.node=f.node WHERE "
)


_MANY = 10_000
"""To sort so many takes longer than to have them sorted for all pages."""


class Found(NamedTuple):
    """A page of flows: how many there are, how many of them the query finds, and those of the page."""

    total: int
    filtered: int
    items: list[Item]


class Listing:
    """Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._counts: Kept[Tree, int] = Kept(1000)
        self._of_columns: Kept[tuple[Tree, str], tuple[Steps | None]] = Kept(100)
        self._kept: Kept[tuple[Tree, tuple[Key, ...]], array[int]] = Kept(32)

    def page(self, query: Tree, order: tuple[Key, ...], pp: int, p: int) -> Found:
        """Page ``p`` (from 0) of ``pp`` flows. Raises QueryInvalidError when that takes longer than QUERY_SECONDS."""
        version = self._db.version
        with self._db.snapshot() as db, _in_time(db):
            total = self._count(db, And(()), version)
            filtered = self._count(db, query, version)
            order = self._telling(db, order, version)
            first = p * pp
            if first >= filtered:
                return Found(total, filtered, [])
            if first + pp <= _FEW and filtered > _FEW:
                chosen: Sequence[int] = _flows(db, query, order, filtered * _SPARSE < total, pp, first)
            elif filtered * _SPARSE >= total and (few := self._few(db, query, order, pp, first, version)) is not None:
                chosen = few
            else:
                chosen = self._ordered(db, query, order, filtered * _DENSE < total, version)[first : first + pp]
            return Found(total, filtered, _items(db, chosen))

    def _telling(self, db: sqlite3.Connection, order: tuple[Key, ...], version: int) -> tuple[Key, ...]:
        """The order without the keys that all flows have the same of: what is sorted by the others has an index."""
        telling = []
        for key in order:
            steps = self._steps(db, And(()), key, version)
            if steps is None or len(steps.values) > 1:
                telling.append(key)
        return tuple(telling) or (Key("name"),)

    def _steps(self, db: sqlite3.Connection, query: Tree, key: Key, version: int) -> Steps | None:
        column = _COLUMNS.get(key.field, key.field)
        known = None if asks_status(query) else self._of_columns.get((query, column), version)
        if known is None:
            known = (read_steps(db, column, condition_of(query)),)
            if not asks_status(query):
                self._of_columns.put((query, column), known, version, self._db.version)
        return known[0]

    def _few(
        self, db: sqlite3.Connection, query: Tree, order: tuple[Key, ...], limit: int, offset: int, version: int
    ) -> list[int] | None:
        """A page deep in a list: found by its first key alone, so that those before it need not be sorted. None where
        too many have the same as its first flow has."""
        column, down = _COLUMNS.get(order[0].field, order[0].field), order[0].down
        steps = self._steps(db, query, order[0], version)
        if steps is not None:
            found = steps.at(offset, down)
        else:
            found = _step(db, column, down, offset) if query == And(()) else None
        if found is None or found[2] > _MANY:
            return None
        value, passed, _same = found
        where, values = condition_of(query)
        sql = (
            f"SELECT flow FROM flows INDEXED BY {_index(order)} WHERE {column} {'<=' if down else '>='} ? "
            f"AND ({where}) ORDER BY {_order(order)} LIMIT ? OFFSET ?"
        )
        return [flow for (flow,) in db.execute(sql, (value, *values, limit, offset - passed))]

    def _ordered(
        self, db: sqlite3.Connection, query: Tree, order: tuple[Key, ...], sparse: bool, version: int
    ) -> Sequence[int]:
        """All flows that the query finds, in order; kept until something changes, for the pages that come after."""
        known = None if asks_status(query) else self._kept.get((query, order), version)
        if known is None:
            if query == And(()) or (sparse and self._kept.get((And(()), order), version) is None):
                known = array("q", _flows(db, query, order, sparse))
            else:
                # To find them and to look where they are among all is quicker than to sort so many.
                whole = self._ordered(db, And(()), order, False, version)
                there = set(_found(db, query))
                known = array("q", [flow for flow in whole if flow in there])
            if not asks_status(query):
                self._kept.put((query, order), known, version, self._db.version)
        return known

    def total(self) -> int:
        """How many flows there are."""
        return self._count(self._db.read(), And(()), self._db.version)

    def find(self, flow_id: str) -> Item | None:
        """The flow of that id."""
        row = self._db.read().execute(f"{_ITEM} f.id=?", (flow_id,)).fetchone()
        return None if row is None else _item(row)

    def proof(self, flow_id: str) -> Proof | None:
        """What shows that its user offers it."""
        row = (
            self._db.read()
            .execute(
                "SELECT n.record, n.record_signature, e.text FROM flows f JOIN entries e ON e.digest=f.digest "
                "JOIN nodes n ON n.node=f.node WHERE f.id=?",
                (flow_id,),
            )
            .fetchone()
        )
        return None if row is None else Proof(record=SignedText(text=row[0], signature=row[1]), entry=row[2])

    def counts(self) -> Item:
        """How many flows there are, and how many of each organization and with each tag, of the MAX_COUNTED largest."""
        with self._db.snapshot() as db:
            organizations = db.execute(
                "SELECT organization, sum(flows) FROM nodes WHERE state<>? AND flows>0 GROUP BY 1 ORDER BY 2 DESC, 1 "
                "LIMIT ?",
                (GONE, MAX_COUNTED),
            ).fetchall()
            tags = db.execute(
                "SELECT min(tag), count(*) FROM tags GROUP BY folded ORDER BY 2 DESC, folded LIMIT ?", (MAX_COUNTED,)
            ).fetchall()
            total = self._count(db, And(()), self._db.version)
        by_name = {"organizations": dict(sorted(organizations)), "tags": dict(sorted(tags))}
        return {"total": total, **by_name}

    def _count(self, db: sqlite3.Connection, query: Tree, version: int) -> int:
        """Counting takes as long as finding all; it is done once until something changes."""
        known = None if asks_status(query) else self._counts.get(query, version)
        if known is None:
            if isinstance(query, Not):
                known = self._count(db, And(()), version) - self._count(db, query.part, version)
            else:
                text, values = condition_of(query)
                known = int(db.execute(f"SELECT count(*) FROM flows WHERE {text}", values).fetchone()[0])
            if not asks_status(query):
                self._counts.put(query, known, version, self._db.version)
        return known


@contextmanager
def _in_time(db: sqlite3.Connection) -> Iterator[None]:
    """Whoever asks for what takes long, again and again, holds up nobody else."""
    until = time.monotonic() + QUERY_SECONDS
    db.set_progress_handler(lambda: time.monotonic() > until, _STEPS)
    try:
        yield
    except sqlite3.OperationalError as error:
        if time.monotonic() <= until:
            raise
        raise QueryInvalidError(
            f"The query takes longer than {QUERY_SECONDS:.0f} s.", hint="Ask for words, or for less at once."
        ) from error
    finally:
        db.set_progress_handler(None, 0)


def _flows(
    db: sqlite3.Connection, query: Tree, order: tuple[Key, ...], sparse: bool, limit: int = -1, offset: int = 0
) -> list[int]:
    """The flows that a query finds. Those that few match are sorted; else the order's index is gone through."""
    text, values = condition_of(query)
    table = "flows" if sparse else f"flows INDEXED BY {_index(order)}"
    sql = f"SELECT flow FROM {table} WHERE {text} ORDER BY {_order(order)} LIMIT ? OFFSET ?"
    return [flow for (flow,) in db.execute(sql, [*values, limit, offset])]


def _found(db: sqlite3.Connection, query: Tree) -> Iterator[int]:
    """The flows that a query finds, in no order."""
    text, values = condition_of(query)
    return (flow for (flow,) in db.execute(f"SELECT flow FROM flows WHERE {text}", values))


def _step(db: sqlite3.Connection, column: str, down: bool, offset: int) -> tuple[str, int, int]:
    """As ``Steps.at``, of a column with many values."""
    way, before = ("DESC", ">") if down else ("ASC", "<")
    sql = f"SELECT {column} FROM flows ORDER BY {column} {way} LIMIT 1 OFFSET ?"
    (value,) = db.execute(sql, (offset,)).fetchone()
    passed = int(db.execute(f"SELECT count(*) FROM flows WHERE {column} {before} ?", (value,)).fetchone()[0])
    return value, passed, int(db.execute(f"SELECT count(*) FROM flows WHERE {column} = ?", (value,)).fetchone()[0])


def _index(order: tuple[Key, ...]) -> str:
    return f"flows_by_{_COLUMNS.get(order[0].field, order[0].field)}"


def _order(order: tuple[Key, ...]) -> str:
    """By the keys, then by name and id; a column that is there already adds nothing."""
    columns = [f"{_COLUMNS.get(key.field, key.field)} {'DESC' if key.down else 'ASC'}" for key in order]
    if all(key.field != "name" for key in order):
        columns.append("name ASC")
    return ", ".join([*columns, "id ASC"])


def _items(db: sqlite3.Connection, flows: Sequence[int]) -> list[Item]:
    return [_item(db.execute(f"{_ITEM} f.flow=?", (flow,)).fetchone()) for flow in flows]


def _item(row: tuple[Any, ...]) -> Item:
    flow_id, text, *said = row
    return item_of(flow_id, FlowEntry.model_validate_json(text), *said)
