"""The file in which a service keeps what it knows: SQLite, one writer at a time, readers beside it."""

from __future__ import annotations

import fcntl
import secrets
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from coflows.errors import ConfigurationError, StoreError
from coflows.registry.judging import is_ahead

VERSION = 2
BUSY_SECONDS = 10
WRITER_CACHE, READER_CACHE = 32_768, 4_096
"""kB; every thread that reads has a connection."""

SCHEMA = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE nodes (
    node INTEGER PRIMARY KEY, user_id TEXT NOT NULL, url TEXT NOT NULL, own INTEGER NOT NULL, state TEXT NOT NULL,
    sequence INTEGER NOT NULL, record TEXT NOT NULL, record_signature TEXT NOT NULL, record_log INTEGER NOT NULL,
    beat INTEGER NOT NULL, beat_text TEXT NOT NULL, beat_signature TEXT NOT NULL, beat_log INTEGER NOT NULL,
    seen REAL NOT NULL, via TEXT NOT NULL, withdrawn INTEGER NOT NULL, flows INTEGER NOT NULL,
    organization TEXT NOT NULL, broker TEXT, registry INTEGER NOT NULL, feed INTEGER NOT NULL, connect TEXT NOT NULL,
    place TEXT NOT NULL DEFAULT '', bytes INTEGER NOT NULL DEFAULT 0,
    UNIQUE (user_id, url)
);
CREATE INDEX nodes_by_url ON nodes (url);
CREATE INDEX nodes_by_record ON nodes (record_log);
CREATE INDEX nodes_by_beat ON nodes (beat_log);
CREATE INDEX nodes_by_seen ON nodes (state, seen);
CREATE INDEX nodes_by_place ON nodes (own, place, bytes);
CREATE TABLE entries (digest TEXT PRIMARY KEY, text TEXT NOT NULL, since REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE flows (
    flow INTEGER PRIMARY KEY, node INTEGER NOT NULL, digest TEXT NOT NULL, id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL, organization TEXT NOT NULL, author TEXT NOT NULL, url TEXT NOT NULL, node_url TEXT NOT NULL,
    user_id TEXT NOT NULL, flow_endpoint TEXT NOT NULL, description TEXT NOT NULL, tags TEXT NOT NULL
);
CREATE INDEX flows_by_node ON flows (node, digest);
CREATE INDEX flows_by_digest ON flows (digest);
CREATE INDEX flows_by_name ON flows (name, id);
CREATE INDEX flows_by_organization ON flows (organization, name, id);
CREATE INDEX flows_by_author ON flows (author, name, id);
CREATE INDEX flows_by_url ON flows (url, name, id);
CREATE INDEX flows_by_node_url ON flows (node_url, name, id);
CREATE INDEX flows_by_user_id ON flows (user_id, name, id);
CREATE INDEX flows_by_flow_endpoint ON flows (flow_endpoint, name, id);
CREATE TABLE tags (
    folded TEXT NOT NULL, flow INTEGER NOT NULL, tag TEXT NOT NULL, PRIMARY KEY (folded, flow)
) WITHOUT ROWID;
CREATE INDEX tags_by_flow ON tags (flow);
CREATE VIRTUAL TABLE words USING fts5 (
    name, organization, author, description, tags, flow_endpoint, content='flows', content_rowid='flow',
    prefix='2 3', detail=none
);
CREATE VIRTUAL TABLE pieces USING fts5 (
    name, author, description, content='flows', content_rowid='flow', tokenize='trigram', detail=none
);
CREATE TRIGGER flows_in AFTER INSERT ON flows BEGIN
    INSERT INTO words (rowid, name, organization, author, description, tags, flow_endpoint)
    VALUES (new.flow, new.name, new.organization, new.author, new.description, new.tags, new.flow_endpoint);
    INSERT INTO pieces (rowid, name, author, description) VALUES (new.flow, new.name, new.author, new.description);
END;
CREATE TRIGGER flows_out AFTER DELETE ON flows BEGIN
    INSERT INTO words (words, rowid, name, organization, author, description, tags, flow_endpoint)
    VALUES (
        'delete', old.flow, old.name, old.organization, old.author, old.description, old.tags, old.flow_endpoint
    );
    INSERT INTO pieces (pieces, rowid, name, author, description)
    VALUES ('delete', old.flow, old.name, old.author, old.description);
    DELETE FROM tags WHERE flow = old.flow;
END;
CREATE TABLE peers (
    user_id TEXT NOT NULL, url TEXT NOT NULL, number INTEGER NOT NULL, connected INTEGER NOT NULL, log TEXT NOT NULL,
    records INTEGER NOT NULL, beats INTEGER NOT NULL, organization TEXT NOT NULL, role TEXT NOT NULL,
    seen REAL NOT NULL, place TEXT NOT NULL DEFAULT '', PRIMARY KEY (user_id, url)
) WITHOUT ROWID;
CREATE TABLE links (
    url TEXT PRIMARY KEY, user_id TEXT NOT NULL, log TEXT NOT NULL, records INTEGER NOT NULL, beats INTEGER NOT NULL,
    wanted INTEGER NOT NULL
) WITHOUT ROWID;
"""

UPGRADES = {
    1: """
    ALTER TABLE nodes ADD COLUMN place TEXT NOT NULL DEFAULT '';
    ALTER TABLE nodes ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE peers ADD COLUMN place TEXT NOT NULL DEFAULT '';
    CREATE INDEX nodes_by_place ON nodes (own, place, bytes);
    """,
}
"""What makes a file of each older version one of the next."""


class Database:
    """Thread-safe. ``version`` changes whenever a flow may have been listed otherwise."""

    def __init__(self, path: Path, reset: bool = False) -> None:
        self.path = path
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._closed = False
        self.version = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._held = _hold(path.with_name(f"{path.name}.lock"))
        except OSError as error:
            raise _unusable(path, error) from error
        try:
            if reset:
                for suffix in ("", "-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._writer = self._connection(WRITER_CACHE)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            self._held.close()
            raise _unusable(path, error) from error

    def _connection(self, cache: int) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_SECONDS, cached_statements=256
        )
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"cache_size=-{cache}", "mmap_size=268435456"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    def _prepare(self) -> None:
        found = self._writer.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            self._writer.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version={VERSION}; COMMIT;")
        elif found > VERSION:
            raise OSError(f"it is of version {found}, this program's is {VERSION}")
        for version in range(found or VERSION, VERSION):
            upgrade = f"BEGIN IMMEDIATE; {UPGRADES[version]} PRAGMA user_version={version + 1}; COMMIT;"
            self._writer.executescript(upgrade)
        with self.write() as db:
            db.execute("INSERT OR IGNORE INTO facts VALUES ('log', ?)", (secrets.token_hex(8),))

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """All of it or nothing; on disk when it returns. Raises StoreError."""
        with self._lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                except BaseException:
                    self._writer.execute("ROLLBACK")
                    raise
                self._writer.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"The cache {self.path} cannot be written: {error}.") from error

    def read(self) -> sqlite3.Connection:
        """This thread's connection for reading."""
        reader: _Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = _Reader(self._connection(READER_CACHE))
            reader.connection.execute("PRAGMA query_only=1")
            with self._lock:
                if self._closed:
                    raise StoreError(f"The cache {self.path} is closed.")
                self._readers.add(reader)
            self._local.reader = reader
        return reader.connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Several reads that see the same."""
        connection = self.read()
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    def fact(self, name: str, default: object = None) -> object:
        """A single value that is kept."""
        found = self.read().execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return default if found is None else found[0]

    def close(self) -> None:
        """Let go of the file. Nobody may be reading any more."""
        with self._lock:
            self._closed = True
            for reader in list(self._readers):
                reader.connection.close()
            self._writer.close()
            self._held.close()


class _Reader:
    """A connection that closes when its thread ends."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


def _hold(path: Path) -> IO[str]:
    """One service a file: two would give out the same numbers."""
    held = path.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        held.close()
        raise OSError(f"{path} is held by another service") from error
    return held


def _unusable(path: Path, error: Exception) -> ConfigurationError:
    return ConfigurationError(
        f"Cannot use the cache {path}: {error}.",
        hint="Is another service using it? Give cache_data=FILE, or cache_reset=True to begin anew.",
    )


def next_log(db: sqlite3.Connection) -> int:
    """The number of the next change in the log of this service."""
    db.execute("INSERT INTO facts VALUES ('head', 1) ON CONFLICT (name) DO UPDATE SET value = value + 1")
    return int(db.execute("SELECT value FROM facts WHERE name = 'head'").fetchone()[0])


def next_number(db: sqlite3.Connection, name: str, at_least: int = 0) -> int:
    """A number that this service has not used yet, not even before its cache was lost, unless the clock went back."""
    number = max(int(time.time() * 1000), _last(db, name) + 1, at_least)
    db.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, number))
    return number


def next_beat(db: sqlite3.Connection) -> int:
    """Like ``next_number``; what it was when the clock was wrong was taken by nobody, and does not hold for ever."""
    if is_ahead(_last(db, "beat"), time.time()):
        db.execute("DELETE FROM facts WHERE name = 'beat'")
    return next_number(db, "beat")


def _last(db: sqlite3.Connection, name: str) -> int:
    found = db.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
    return found[0] if found else 0
