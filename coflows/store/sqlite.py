"""The SQLite store: one file, several processes and threads, nothing to install."""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from coflows.doorbell import Doorbell, bells_in, ring_all
from coflows.store.adapter import AdapterStore
from coflows.store.commits import Commit, conflict
from coflows.store.group import Outcome
from coflows.store.pool import Pool
from coflows.store.sqlite_file import SqliteFile
from coflows.store.sqlite_group import SqliteGroup
from coflows.store.watching import Signal

READERS = 8
BUSY_TIMEOUT = 10.0


class SqliteStore(AdapterStore):
    """See Store. ``busy_timeout``: seconds to wait for another process that holds the file."""

    def __init__(self, path: Path, *, namespace: str, busy_timeout: float = BUSY_TIMEOUT) -> None:
        super().__init__(f"sqlite:///{path.absolute()}")
        self._file = SqliteFile(path, busy_timeout)
        self._file.prepare()
        self._bells = path.absolute().with_name(f"{path.name}-watch")
        self._connection = self._file.connect(waits=False)
        self._readers: Pool[sqlite3.Connection] = Pool(self._file.connect, sqlite3.Connection.close, READERS)
        self._namespace = self._register(namespace)

    def open_signal(self) -> Signal:
        """See ChangeFeed."""
        return _BellSignal(self._bells)

    def _register(self, namespace: str) -> int:
        try:
            self._file.begin(self._connection)
            self._connection.execute("INSERT OR IGNORE INTO coflows_namespaces (name) VALUES (?)", (namespace,))
            row = self._connection.execute("SELECT id FROM coflows_namespaces WHERE name = ?", (namespace,)).fetchone()
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise self._file.translated(error) from error
        return int(row[0])

    def _fetch(self, query: str, parameters: tuple[object, ...]) -> list[Any]:
        connection = self._readers.take()
        try:
            rows = connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            self._readers.drop(connection)
            raise self._file.translated(error) from error
        except BaseException:
            self._readers.drop(connection)
            raise
        self._readers.give_back(connection)
        return rows

    def _apply(self, commits: list[Commit]) -> list[Outcome]:
        watched = bool(bells_in(self._bells))
        try:
            self._file.begin(self._connection)
            group = SqliteGroup(self._connection, self._namespace, commits)
            outcomes = [self._apply_one(group, commit) for commit in commits]
            group.write(watched)
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._rollback()
            raise self._file.translated(error) from error
        except BaseException:
            self._rollback()
            raise
        if watched:
            ring_all(self._bells)
        return outcomes

    def _apply_one(self, group: SqliteGroup, commit: Commit) -> Outcome:
        stale = group.stale(commit)
        return conflict(self.url, stale) if stale else group.add(commit)

    def _rollback(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")

    def _disconnect(self) -> None:
        self._readers.close()
        self._connection.close()


class _BellSignal(Signal):
    """Woken by the bell that every committer of the file rings."""

    def __init__(self, directory: Path) -> None:
        self._bell = Doorbell(directory)

    def wait(self, timeout: float) -> None:
        self._bell.wait(timeout)

    def wake(self) -> None:
        self._bell.wake()

    def close(self) -> None:
        self._bell.close()
