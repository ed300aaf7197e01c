"""The PostgreSQL store: one database for many machines, through psycopg."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from coflows.errors import ConfigurationError, StoreError, StoreReadOnlyError, StoreUnavailableError
from coflows.store.adapter import AdapterStore
from coflows.store.commits import Commit
from coflows.store.group import Outcome
from coflows.store.pool import Pool
from coflows.store.postgres_group import FORGET, SCHEMA, PostgresGroups
from coflows.store.watching import Signal

READERS = 4
PATIENCE = 10.0
"""Seconds that a server which went away is waited for."""
LINK = {
    "connect_timeout": 5,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}
"""How soon a server that fell silent counts as gone, unless the URL says otherwise."""
SESSION = """
SET idle_in_transaction_session_timeout = '5s';
SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 10000
"""
"""How soon the server ends a transaction whose writer fell silent: others wait for its lock. When a part of what
belongs to it has come, its writer does not count as idle."""
LOST = (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)
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
"""


class PostgresStore(AdapterStore):
    """See Store. ``url`` is a libpq URL; the account may create tables, or they are there already."""

    def __init__(self, url: str, *, namespace: str) -> None:
        try:
            parts = conninfo_to_dict(url)
        except psycopg.ProgrammingError:
            # libpq quotes pieces of the URL, so of the password; its error is not chained.
            raise ConfigurationError(
                "The store URL cannot be read.", hint="Write postgresql://user:password@host:5432/database."
            ) from None
        self._user = str(parts.get("user", ""))
        super().__init__(
            f"postgresql://{self._user}@{parts.get('host', '')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"
        )
        self._dsn = make_conninfo(url, **{name: value for name, value in LINK.items() if name not in parts})
        self._connection: psycopg.Connection[Any] | None = self._connect()
        self._set_up(self._connection, namespace)
        self._channel = f"coflows_{self._namespace}"
        self._groups = PostgresGroups(self._namespace, self._channel, self.url)
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
            connection = psycopg.connect(self._dsn, autocommit=True, client_encoding="utf8")
            connection.execute(SESSION)
        except psycopg.Error as error:
            raise self._translated(error) from error
        return connection

    def _set_up(self, connection: psycopg.Connection[Any], namespace: str) -> None:
        try:
            with connection.transaction():
                connection.execute("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))
                if connection.execute("SELECT to_regclass('coflows_writers')").fetchone() == (None,):
                    connection.execute(_SCHEMA + SCHEMA)
                query = "INSERT INTO coflows_namespaces (name) VALUES (%s) ON CONFLICT DO NOTHING"
                connection.execute(query, (namespace,))
                found = connection.execute("SELECT id FROM coflows_namespaces WHERE name = %s", (namespace,))
                self._namespace = _row(found)[0]
                connection.execute(FORGET, (self._namespace,))
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
        deadline = time.monotonic() + PATIENCE
        self._groups.begin()
        while True:
            try:
                if self._connection is None:
                    self._connection = self._connect()
                return self._groups.apply(self._connection, commits)
            except (*LOST, StoreUnavailableError) as error:
                # Whether what was cut off was applied, the group's record tells the next attempt.
                self._drop_connection()
                if time.monotonic() > deadline:
                    raise self._away(error) from error
                time.sleep(0.1)
            except psycopg.Error as error:
                raise self._translated(error) from error

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
