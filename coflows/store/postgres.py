"""The PostgreSQL store: one database for many machines, through psycopg."""

from __future__ import annotations

import contextlib
import secrets
import select
import socket
import threading
import time
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from coflows.errors import ConfigurationError, StoreError, StoreReadOnlyError, StoreUnavailableError
from coflows.store.adapter import RETAINED_CHANGES, AdapterStore
from coflows.store.commits import Commit, conflict
from coflows.store.group import Outcome
from coflows.store.pool import Pool
from coflows.store.watching import Signal

READERS = 4
PATIENCE = 10.0
"""Seconds that a server which went away is waited for."""
RETAINED_GROUPS = 1000
_SCHEMA_LOCK = 0x636F666C
_SCHEMA = """
CREATE TABLE IF NOT EXISTS coflows_namespaces (
    id BIGSERIAL PRIMARY KEY, name TEXT NOT NULL UNIQUE, version BIGINT NOT NULL DEFAULT 0,
    log_end BIGINT NOT NULL DEFAULT 0, log_floor BIGINT NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS coflows_entries (
    namespace BIGINT NOT NULL, key TEXT COLLATE "C" NOT NULL, value BYTEA NOT NULL, version BIGINT NOT NULL,
    PRIMARY KEY (namespace, key)
);
CREATE TABLE IF NOT EXISTS coflows_changes (
    namespace BIGINT NOT NULL, id BIGINT NOT NULL, key TEXT COLLATE "C" NOT NULL, deleted INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
);
CREATE TABLE IF NOT EXISTS coflows_groups (
    namespace BIGINT NOT NULL, id BYTEA NOT NULL, at BIGINT NOT NULL, PRIMARY KEY (namespace, id)
);
"""
_UPSERT = (
    "INSERT INTO coflows_entries VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, version = excluded.version"
)


class PostgresStore(AdapterStore):
    """See Store. ``url`` is a libpq URL; the account may create tables, or they are there already."""

    def __init__(self, url: str, *, namespace: str) -> None:
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(
                "The store URL cannot be read.", hint="Write postgresql://user:password@host:5432/database."
            ) from error
        self._user = str(parts.get("user", ""))
        super().__init__(
            f"postgresql://{self._user}@{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
        )
        self._dsn = url
        self._connection: psycopg.Connection[Any] | None = self._connect()
        self._set_up(self._connection, namespace)
        self._channel = f"coflows_{self._namespace}"
        self._readers: Pool[psycopg.Connection[Any]] = Pool(self._connect, psycopg.Connection.close, READERS)

    def open_signal(self) -> Signal:
        """See ChangeFeed."""
        return _NotifySignal(self)

    def connect_listener(self) -> psycopg.Connection[Any]:
        """A connection that hears of every commit of this namespace."""
        connection = self._connect()
        connection.execute(f"LISTEN {self._channel}")
        return connection

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            return psycopg.connect(self._dsn, autocommit=True, connect_timeout=5, client_encoding="utf8")
        except psycopg.Error as error:
            raise self._translated(error) from error

    def _set_up(self, connection: psycopg.Connection[Any], namespace: str) -> None:
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
                if connection.execute("SELECT to_regclass('coflows_groups')").fetchone() == (None,):
                    connection.execute(_SCHEMA)
                query = "INSERT INTO coflows_namespaces (name) VALUES (%s) ON CONFLICT DO NOTHING"
                connection.execute(query, (namespace,))
                found = connection.execute("SELECT id FROM coflows_namespaces WHERE name = %s", (namespace,))
                self._namespace = _row(found)[0]
        except psycopg.Error as error:
            raise self._translated(error) from error

    # -- reading -----------------------------------------------------------------------------------------------

    def _fetch(self, query: str, parameters: tuple[object, ...]) -> list[Any]:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self._fetch_once(query.replace("?", "%s"), parameters)
            except (psycopg.OperationalError, StoreUnavailableError) as error:
                if time.monotonic() > deadline:
                    raise self._away(error) from error
                time.sleep(0.1)
            except psycopg.Error as error:
                raise self._translated(error) from error

    def _fetch_once(self, query: str, parameters: tuple[object, ...]) -> list[Any]:
        connection = self._readers.take()
        try:
            rows = connection.execute(query, parameters).fetchall()
        except BaseException:
            self._readers.drop(connection)
            raise
        self._readers.give_back(connection)
        return rows

    # -- writing -----------------------------------------------------------------------------------------------

    def _apply(self, commits: list[Commit]) -> list[Outcome]:
        group, deadline = secrets.token_bytes(16), time.monotonic() + PATIENCE
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return self._apply_once(self._connection, commits, group)
            except (psycopg.OperationalError, StoreUnavailableError) as error:
                # Whether a commit that was cut off was applied, the group's record tells the next attempt.
                self._drop_connection()
                if time.monotonic() > deadline:
                    raise self._away(error) from error
                time.sleep(0.1)
            except psycopg.Error as error:
                raise self._translated(error) from error

    def _apply_once(self, connection: psycopg.Connection[Any], commits: list[Commit], group: bytes) -> list[Outcome]:
        namespace = self._namespace
        with connection.transaction():
            query = "SELECT version, log_end, log_floor FROM coflows_namespaces WHERE id = %s FOR UPDATE"
            version, log_end, log_floor = _row(connection.execute(query, (namespace,)))
            query = "SELECT at FROM coflows_groups WHERE namespace = %s AND id = %s"
            applied = connection.execute(query, (namespace, group)).fetchone()
            if applied is not None:
                return self._replay(connection, commits, applied[0])
            start, outcomes, changes = version, [], []
            outcome: Outcome
            for commit in commits:
                stale = self._stale(connection, commit)
                if stale:
                    outcome = conflict(self.url, stale)
                else:
                    version += 1 if commit.changes else 0
                    self._write(connection, commit, version)
                    changes += [(key, 0) for key in commit.writes] + [(key, 1) for key in commit.deletes]
                    outcome = version
                outcomes.append(outcome)
            if changes:
                self._log(connection, changes, log_end, log_floor, version)
                self._remember(connection, group, start, outcomes)
        return outcomes

    def _stale(self, connection: psycopg.Connection[Any], commit: Commit) -> list[str]:
        if not commit.conditions:
            return []
        query = "SELECT key, version FROM coflows_entries WHERE namespace = %s AND key = ANY(%s)"
        there = dict(connection.execute(query, (self._namespace, list(commit.conditions))).fetchall())
        return [key for key, version in commit.conditions.items() if there.get(key, 0) != version]

    def _write(self, connection: psycopg.Connection[Any], commit: Commit, version: int) -> None:
        if commit.writes:
            rows = [(self._namespace, key, value, version) for key, value in commit.writes.items()]
            with connection.cursor() as cursor:
                cursor.executemany(_UPSERT, rows)
        if commit.deletes:
            query = "DELETE FROM coflows_entries WHERE namespace = %s AND key = ANY(%s)"
            connection.execute(query, (self._namespace, list(commit.deletes)))

    def _log(
        self,
        connection: psycopg.Connection[Any],
        changes: list[tuple[str, int]],
        log_end: int,
        log_floor: int,
        version: int,
    ) -> None:
        namespace = self._namespace
        rows = [(namespace, log_end + number, key, gone) for number, (key, gone) in enumerate(changes, 1)]
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO coflows_changes VALUES (%s, %s, %s, %s)", rows)
        log_end += len(changes)
        # Trimmed a good part at a time, so that most commits have nothing to trim.
        if log_end - log_floor > RETAINED_CHANGES:
            log_floor = log_end - RETAINED_CHANGES // 2
            query = "DELETE FROM coflows_changes WHERE namespace = %s AND id <= %s"
            connection.execute(query, (namespace, log_floor))
        query = "UPDATE coflows_namespaces SET version = %s, log_end = %s, log_floor = %s WHERE id = %s"
        connection.execute(query, (version, log_end, log_floor, namespace))
        connection.execute("SELECT pg_notify(%s, '')", (self._channel,))

    def _remember(self, connection: psycopg.Connection[Any], group: bytes, start: int, outcomes: list[Outcome]) -> None:
        connection.execute("INSERT INTO coflows_groups VALUES (%s, %s, %s)", (self._namespace, group, start))
        if start % RETAINED_GROUPS < len(outcomes):
            query = "DELETE FROM coflows_groups WHERE namespace = %s AND at < %s"
            connection.execute(query, (self._namespace, start - RETAINED_GROUPS))

    def _replay(self, connection: psycopg.Connection[Any], commits: list[Commit], start: int) -> list[Outcome]:
        """The outcomes of a group that was applied before the connection was lost. A group of one is all that can
        still be told apart; of a larger one, which were refused is not recorded."""
        if len(commits) == 1:
            return [start + 1]
        raise StoreError(
            f"The connection to {self.url} was lost while several commits were written; they were applied, except "
            "those whose conditions did not hold.",
            hint="Read again, and decide again.",
        )

    # -- errors and end ----------------------------------------------------------------------------------------

    def _translated(self, error: psycopg.Error) -> StoreError:
        if isinstance(error, psycopg.errors.ReadOnlySqlTransaction | psycopg.errors.InsufficientPrivilege):
            return StoreReadOnlyError(
                f"User {self._user!r} may not write to {self.url}: {_first_line(error)}.",
                hint="Grant it, or use another account.",
            )
        if "authentication failed" in str(error) or "password" in str(error):
            return StoreUnavailableError(
                f"PostgreSQL at {self.url} refuses user {self._user!r}.", hint="Check name and password in the URL."
            )
        if isinstance(error, psycopg.OperationalError):
            return self._away(error)
        return StoreError(f"{self.url} failed: {_first_line(error)}.", hint="See the server's log.")

    def _away(self, error: Exception) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"PostgreSQL at {self.url} does not answer: {_first_line(error)}.", hint="Is it running? Try again."
        )

    def _drop_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error):
                connection.close()

    def _disconnect(self) -> None:
        self._readers.close()
        self._drop_connection()


class _NotifySignal(Signal):
    """Woken by NOTIFY, or by ``wake`` through a pair of sockets."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store
        self._connection: psycopg.Connection[Any] | None = store.connect_listener()
        self._reader, self._writer = socket.socketpair()
        self._lock = threading.Lock()

    def wait(self, timeout: float) -> None:
        if self._connection is None:
            with contextlib.suppress(StoreError):
                self._connection = self._store.connect_listener()
        sources: list[Any] = [self._reader]
        if self._connection is not None:
            sources.append(self._connection)
        ready = select.select(sources, [], [], timeout)[0]
        if self._reader in ready:
            self._reader.recv(4096)
        if self._connection is not None and self._connection in ready:
            try:
                for _ in self._connection.notifies(timeout=0):
                    continue
            except psycopg.Error:
                self._connection = None

    def wake(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            self._writer.send(b".")

    def close(self) -> None:
        with self._lock:
            self._reader.close()
            self._writer.close()
        if self._connection is not None:
            self._connection.close()


def _row(cursor: psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    assert row is not None
    return row


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
