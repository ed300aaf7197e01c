"""A group of commits inside one SQLite transaction: checked one after the other, written together."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from coflows.store.adapter import MAX_KEYS, RETAINED_CHANGES
from coflows.store.commits import Commit

_VERSIONS = "SELECT key, version FROM coflows_entries WHERE namespace = ? AND key IN ({})"
_UPSERT = (
    "INSERT INTO coflows_entries VALUES (?, ?, ?, ?) ON CONFLICT (namespace, key)"
    " DO UPDATE SET value = excluded.value, version = excluded.version"
)
_DELETE = "DELETE FROM coflows_entries WHERE namespace = ? AND key = ?"


class SqliteGroup:
    """Made and used inside one transaction of ``connection``. A key that several commits write is written once."""

    def __init__(self, connection: sqlite3.Connection, namespace: int, commits: Iterable[Commit]) -> None:
        self._connection = connection
        self._namespace = namespace
        self._version: int
        self._log_end: int
        self._log_floor: int
        self._version, self._log_end, self._log_floor = connection.execute(
            "SELECT version, log_end, log_floor FROM coflows_namespaces WHERE id = ?", (namespace,)
        ).fetchone()
        self._began_at = self._version
        self._versions = self._read(dict.fromkeys(key for commit in commits for key in commit.conditions))
        self._rows: dict[str, tuple[bytes, int] | None] = {}
        self._changes: list[tuple[str, int]] = []

    def stale(self, commit: Commit) -> list[str]:
        """The keys whose version, after the commits added so far, is not what the commit asks for."""
        return [key for key, version in commit.conditions.items() if self._versions.get(key, 0) != version]

    def add(self, commit: Commit) -> int:
        """Apply a commit; gives its version."""
        if not commit.changes:
            return self._version
        self._version += 1
        for key, value in commit.writes.items():
            self._rows[key] = (value, self._version)
            self._versions[key] = self._version
            self._changes.append((key, 0))
        for key in commit.deletes:
            self._rows[key] = None
            self._versions[key] = 0
            self._changes.append((key, 1))
        return self._version

    def write(self, watched: bool) -> None:
        """Write what was added; the change log too when somebody watches."""
        if self._version == self._began_at:
            return
        namespace = self._namespace
        self._connection.executemany(
            _UPSERT, [(namespace, key, row[0], row[1]) for key, row in self._rows.items() if row is not None]
        )
        gone = [(namespace, key) for key, row in self._rows.items() if row is None]
        if gone:
            self._connection.executemany(_DELETE, gone)
        self._log(watched)
        self._connection.execute(
            "UPDATE coflows_namespaces SET version = ?, log_end = ?, log_floor = ? WHERE id = ?",
            (self._version, self._log_end, self._log_floor, namespace),
        )

    def _log(self, watched: bool) -> None:
        begin, namespace = self._log_end, self._namespace
        self._log_end += len(self._changes)
        if not watched:
            self._log_floor = self._log_end
            return
        self._connection.executemany(
            "INSERT INTO coflows_changes VALUES (?, ?, ?, ?)",
            [(namespace, begin + number, key, gone) for number, (key, gone) in enumerate(self._changes, 1)],
        )
        floor = max(self._log_floor, self._log_end - RETAINED_CHANGES)
        if floor > self._log_floor:
            self._log_floor = floor
            self._connection.execute("DELETE FROM coflows_changes WHERE namespace = ? AND id <= ?", (namespace, floor))

    def _read(self, keys: dict[str, None]) -> dict[str, int]:
        versions: dict[str, int] = {}
        wanted = list(keys)
        for first in range(0, len(wanted), MAX_KEYS):
            part = wanted[first : first + MAX_KEYS]
            part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))  # few different statements
            query = _VERSIONS.format(", ".join("?" * len(part)))
            versions.update(self._connection.execute(query, (self._namespace, *part)).fetchall())
        return versions
