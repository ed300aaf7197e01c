"""A SQLite database file: found or made, opened, and its errors in our words."""

from __future__ import annotations

import errno
import os
import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path

from coflows.errors import StoreError, StoreLockedError, StoreReadOnlyError, StoreUnavailableError
from coflows.ownership import check_owner

_APPLICATION_ID = 0x434F464C
_SCHEMA_VERSION = 1
_SCHEMA = (
    "CREATE TABLE coflows_namespaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE,"
    " version INTEGER NOT NULL DEFAULT 0, log_end INTEGER NOT NULL DEFAULT 0,"
    " log_floor INTEGER NOT NULL DEFAULT 0)",
    "CREATE TABLE coflows_entries (namespace INTEGER NOT NULL, key TEXT NOT NULL COLLATE BINARY,"
    " value BLOB NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (namespace, key))",
    "CREATE TABLE coflows_changes (namespace INTEGER NOT NULL, id INTEGER NOT NULL, key TEXT NOT NULL,"
    " deleted INTEGER NOT NULL, PRIMARY KEY (namespace, id)) WITHOUT ROWID",
    f"PRAGMA application_id = {_APPLICATION_ID}",
    f"PRAGMA user_version = {_SCHEMA_VERSION}",
)
_SHORTEST_PAUSE = 0.0001
_LONGEST_PAUSE = 0.002
_WAL_BYTES_KEPT = 64 * 1024 * 1024


class SqliteFile:
    """The file of one or more stores. Thread-safe; connections are the caller's to share out and to close."""

    def __init__(self, path: Path, busy_timeout: float) -> None:
        self.path = path.absolute()
        self._busy_timeout = busy_timeout

    def prepare(self) -> None:
        """Make folder, file and tables when they are not there; raises StoreError when the file cannot be used."""
        self._make()
        connection = self.connect()
        try:
            self._set_up(connection)
        except sqlite3.Error as error:
            raise self.translated(error) from error
        finally:
            connection.close()

    def connect(self, *, waits: bool = True) -> sqlite3.Connection:
        """A connection in autocommit mode, for one thread at a time; one that does not wait is for ``begin``."""
        try:
            connection = sqlite3.connect(
                self.path,
                timeout=self._busy_timeout if waits else 0,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT}")
        except sqlite3.Error as error:
            raise self.translated(error) from error
        return connection

    def begin(self, connection: sqlite3.Connection) -> None:
        """Take the write lock; waits up to the busy timeout, then raises sqlite3.OperationalError."""
        if connection.in_transaction:  # left by an interrupt in the middle of a rollback
            connection.execute("ROLLBACK")
        self._patiently(connection, "BEGIN IMMEDIATE")

    def translated(self, error: sqlite3.Error) -> StoreError:
        """The error to raise for one of SQLite's."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        where = f"The store file {self.path}"
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return StoreLockedError(
                f"{where} has been locked by another process for {self._busy_timeout:g} s.",
                hint=f"Find it with `fuser {self.path}`; end it or let it finish, then try again.",
            )
        if code == sqlite3.SQLITE_READONLY:
            return self._read_only(self.path)
        if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            return StoreError(
                f"{where} is not a SQLite database, or is damaged ({error}).",
                hint="Choose another file, or move this one away and restore it from a backup.",
            )
        if code == sqlite3.SQLITE_FULL:
            return StoreError(f"{where} cannot grow: the disk is full.", hint="Free some space and try again.")
        if code == sqlite3.SQLITE_CANTOPEN:
            return StoreUnavailableError(
                f"{where} cannot be opened.", hint="Check that it is a file and that you may use its folder."
            )
        return StoreError(f"{where} failed: {error}.", hint="Check the disk and the file with `sqlite3 FILE .check`.")

    def _make(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path.is_dir():
                raise StoreError(f"The store file {self.path} is a folder.", hint="Choose the name of a file.")
            for place in (folder, self.path):
                if place.exists() and not os.access(place, os.W_OK):
                    raise self._read_only(place)
            # Only a new file is opened here: to close one is to lose the locks that SQLite has on it in this process.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            # What is in it is believed: states are code.
            self._check_owner(folder)
            self._check_owner(self.path)
        except PermissionError as error:
            raise self._read_only(folder) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise self._read_only(folder) from error
            raise StoreUnavailableError(
                f"The store file {self.path} cannot be made: {error.strerror}.", hint="Choose another place for it."
            ) from error

    def _check_owner(self, place: Path) -> None:
        try:
            check_owner(place)
        except PermissionError as error:
            raise StoreUnavailableError(
                f"The store file {self.path} is not safe: {place}: {error.strerror}.",
                hint="Choose a place of your own, or take others' right to write away (`chmod o-w`).",
            ) from error

    def _read_only(self, place: Path) -> StoreReadOnlyError:
        return StoreReadOnlyError(
            f"The store file {self.path} cannot be written: {place} is read-only for this user.",
            hint=f"Make it writable (`chmod u+w {place}`, or change its owner), or choose another store.",
        )

    def _set_up(self, connection: sqlite3.Connection) -> None:
        if self._is_current(connection):
            return
        mode = self._patiently(connection, "PRAGMA journal_mode = WAL")
        if mode != "wal":
            raise StoreError(
                f"The store file {self.path} is on a file system without shared memory (journal mode {mode}).",
                hint="Put it on a local disk.",
            )
        self.begin(connection)
        try:
            if not self._is_current(connection):
                for statement in _SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _is_current(self, connection: sqlite3.Connection) -> bool:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if (owner, version) == (_APPLICATION_ID, _SCHEMA_VERSION):
            return True
        if owner == _APPLICATION_ID:
            raise StoreError(
                f"The store file {self.path} has schema {version}, this coflows knows {_SCHEMA_VERSION}.",
                hint="Use the coflows version that wrote it, or choose another file.",
            )
        if owner or version or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise StoreError(
                f"The store file {self.path} is the database of another program.", hint="Choose another file."
            )
        return False

    def _patiently(self, connection: sqlite3.Connection, statement: str) -> object:
        """Run it until it is not refused as busy.

        SQLite's own waiting grows to 100 ms a step, an age beside a commit, and for some statements it does not
        wait at all.
        """
        deadline = time.monotonic() + self._busy_timeout
        pause = _SHORTEST_PAUSE
        while True:
            try:
                row = connection.execute(statement).fetchone()
                return row[0] if row else None
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, _LONGEST_PAUSE)
