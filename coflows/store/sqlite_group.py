"""A group of commits inside one SQLite transaction: checked one after the other, written together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from coflows.store.adapter import MAX_KEYS, RETAINED_CHANGES
from coflows.store.commits import Commit
from coflows.store.planning import GroupPlan, condition_keys

_VERSIONS = "SELECT key, version FROM coflows_entries WHERE namespace = ? AND key IN ({})"
_UPSERT = (
    "INSERT INTO coflows_entries VALUES {} ON CONFLICT (namespace, key)"
    " DO UPDATE SET value = excluded.value, version = excluded.version"
)
_DELETE = "DELETE FROM coflows_entries WHERE namespace = ? AND key IN ({})"
_ROWS = 64


class SqliteGroup(GroupPlan):
    """Made and used inside one transaction of ``connection``."""

    def __init__(self, connection: sqlite3.Connection, namespace: int, commits: Sequence[Commit]) -> None:
        self._connection = connection
        self._namespace = namespace
        self._log_end: int
        self._log_floor: int
        version, self._log_end, self._log_floor = connection.execute(
            "SELECT version, log_end, log_floor FROM coflows_namespaces WHERE id = ?", (namespace,)
        ).fetchone()
        super().__init__(version, self._read(condition_keys(commits)))

    def write(self, watched: bool) -> None:
        """Write what was added; the change log too when somebody watches."""
        if self.version == self.began_at:
            return
        namespace = self._namespace
        self._upsert([(namespace, key, *row) for key, row in self.rows.items() if row is not None])
        self._delete([key for key, row in self.rows.items() if row is None])
        self._log(watched)
        self._connection.execute(
            "UPDATE coflows_namespaces SET version = ?, log_end = ?, log_floor = ? WHERE id = ?",
            (self.version, self._log_end, self._log_floor, namespace),
        )

    def _upsert(self, rows: list[tuple[int, str, bytes, int]]) -> None:
        # Many rows in one statement: between two, another thread may take the interpreter for long. Their numbers are
        # powers of two, so there are few different statements.
        first = 0
        while first < len(rows):
            count = min(_ROWS, 1 << ((len(rows) - first).bit_length() - 1))
            values = [value for row in rows[first : first + count] for value in row]
            self._connection.execute(_UPSERT.format(", ".join(["(?, ?, ?, ?)"] * count)), values)
            first += count

    def _delete(self, keys: list[str]) -> None:
        for part in _parts(keys):
            self._connection.execute(_DELETE.format(", ".join("?" * len(part))), (self._namespace, *part))

    def _log(self, watched: bool) -> None:
        begin, namespace = self._log_end, self._namespace
        self._log_end += len(self.changes)
        if not watched:
            self._log_floor = self._log_end
            return
        self._connection.executemany(
            "INSERT INTO coflows_changes VALUES (?, ?, ?, ?)",
            [(namespace, begin + number, key, gone) for number, (key, gone) in enumerate(self.changes, 1)],
        )
        floor = max(self._log_floor, self._log_end - RETAINED_CHANGES)
        if floor > self._log_floor:
            self._log_floor = floor
            self._connection.execute("DELETE FROM coflows_changes WHERE namespace = ? AND id <= ?", (namespace, floor))

    def _read(self, keys: dict[str, None]) -> dict[str, int]:
        versions: dict[str, int] = {}
        for part in _parts(list(keys)):
            query = _VERSIONS.format(", ".join("?" * len(part)))
            versions.update(self._connection.execute(query, (self._namespace, *part)).fetchall())
        return versions


def _parts(keys: list[str]) -> Iterator[list[str]]:
    """Some keys at a time, filled up to a power of two with the last one: few different statements."""
    for first in range(0, len(keys), MAX_KEYS):
        part = keys[first : first + MAX_KEYS]
        yield part + part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))
