"""The file of the embedded broker: its tables, and what each operation does to them inside a transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coflows.broker.base import QueueSpec
from coflows.errors import QueueMismatchError, UnroutableError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS queues (
    name TEXT PRIMARY KEY, single_active INTEGER NOT NULL, expires REAL, dead_letter TEXT, last_used REAL NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS consumers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, session TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue TEXT NOT NULL, body BLOB NOT NULL, consumer INTEGER,
    redelivered INTEGER NOT NULL DEFAULT 0, origin TEXT, reason TEXT
);
CREATE INDEX IF NOT EXISTS consumers_by_queue ON consumers (queue, id);
CREATE INDEX IF NOT EXISTS ready ON messages (queue, id) WHERE consumer IS NULL;
CREATE INDEX IF NOT EXISTS claimed ON messages (consumer) WHERE consumer IS NOT NULL;
"""


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that a consumer has taken."""

    id: int
    body: bytes
    redelivered: bool
    origin: str | None
    reason: str | None


class BrokerFile:
    """Used by one thread, each method inside a transaction that its caller begins and commits."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        self.connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.executescript(_SCHEMA)

    def declare(self, spec: QueueSpec) -> None:
        """Make a queue, or check that it is as asked for."""
        row = self._one("SELECT single_active, expires, dead_letter FROM queues WHERE name = ?", spec.name)
        if row is None:
            self.connection.execute(
                "INSERT INTO queues VALUES (?, ?, ?, ?, ?)",
                (spec.name, spec.single_active, spec.expires, spec.dead_letter_queue, time.time()),
            )
            return
        there = QueueSpec(spec.name, bool(row[0]), row[1], row[2])
        if there != spec:
            raise QueueMismatchError(
                f"Queue {spec.name} exists as {there}, and was now declared as {spec}.",
                hint="Delete the queue, or use another dispatch point.",
            )

    def exists(self, queue: str) -> bool:
        """Whether there is such a queue."""
        return self._one("SELECT 1 FROM queues WHERE name = ?", queue) is not None

    def require(self, queue: str) -> None:
        """UnroutableError unless there is such a queue."""
        if not self.exists(queue):
            raise UnroutableError(f"There is no queue {queue}.")

    def delete(self, queue: str) -> None:
        """Delete a queue and what it holds."""
        self.connection.execute("DELETE FROM queues WHERE name = ?", (queue,))
        self.connection.execute("DELETE FROM messages WHERE queue = ?", (queue,))

    def publish(self, queue: str, body: bytes) -> None:
        """Append a message."""
        self.require(queue)
        self.connection.execute("INSERT INTO messages (queue, body) VALUES (?, ?)", (queue, body))

    def add_consumer(self, queue: str, session: str) -> int:
        """Line up as the last consumer of a queue; "" for taking single messages."""
        if queue:
            self.require(queue)
            self._touch(queue)
        cursor = self.connection.execute("INSERT INTO consumers (queue, session) VALUES (?, ?)", (queue, session))
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def remove_consumer(self, consumer: int) -> None:
        """Leave, and give back what was taken."""
        row = self._one("SELECT queue FROM consumers WHERE id = ?", consumer)
        self.connection.execute("DELETE FROM consumers WHERE id = ?", (consumer,))
        self.connection.execute("UPDATE messages SET consumer = NULL, redelivered = 1 WHERE consumer = ?", (consumer,))
        if row is not None:
            self._touch(row[0])

    def has_ready(self, queue: str) -> bool:
        """Whether the queue has a message that nobody has."""
        return self._one("SELECT 1 FROM messages WHERE queue = ? AND consumer IS NULL LIMIT 1", queue) is not None

    def take(self, queue: str, consumer: int, limit: int) -> list[Claim]:
        """Take the oldest messages that nobody has."""
        rows = self.connection.execute(
            "SELECT id, body, redelivered, origin, reason FROM messages"
            " WHERE queue = ? AND consumer IS NULL ORDER BY id LIMIT ?",
            (queue, limit),
        ).fetchall()
        if rows:
            self.connection.executemany(
                "UPDATE messages SET consumer = ? WHERE id = ?", [(consumer, row[0]) for row in rows]
            )
        return [Claim(row[0], row[1], bool(row[2]), row[3], row[4]) for row in rows]

    def ack(self, message: int, consumer: int) -> None:
        """The message is done with."""
        self.connection.execute("DELETE FROM messages WHERE id = ? AND consumer = ?", (message, consumer))

    def requeue(self, message: int, consumer: int) -> None:
        """Give it back to its old place."""
        self.connection.execute(
            "UPDATE messages SET consumer = NULL, redelivered = 1 WHERE id = ? AND consumer = ?", (message, consumer)
        )

    def reject(self, message: int, consumer: int, reason: str) -> None:
        """Move it to the dead letters of its queue, or drop it where there are none."""
        row = self._one(
            "SELECT m.queue, m.body, q.dead_letter FROM messages m LEFT JOIN queues q ON q.name = m.queue"
            " WHERE m.id = ? AND m.consumer = ?",
            message,
            consumer,
        )
        if row is None:
            return
        self.connection.execute("DELETE FROM messages WHERE id = ?", (message,))
        if row[2] is not None and self.exists(row[2]):
            self.connection.execute(
                "INSERT INTO messages (queue, body, origin, reason) VALUES (?, ?, ?, ?)",
                (row[2], row[1], row[0], reason),
            )

    def is_single_active(self, queue: str) -> bool:
        """Whether only the first consumer of the queue gets messages."""
        row = self._one("SELECT single_active FROM queues WHERE name = ?", queue)
        return row is not None and bool(row[0])

    def consumers(self, queue: str) -> list[int]:
        """The consumers of a queue, the first one first."""
        rows = self.connection.execute("SELECT id FROM consumers WHERE queue = ? ORDER BY id", (queue,))
        return [row[0] for row in rows]

    def bury_dead(self, alive: Callable[[str], bool]) -> bool:
        """Remove the consumers of sessions that are gone, and queues that outlived their expiry. Whether there were
        any."""
        sessions = [row[0] for row in self.connection.execute("SELECT DISTINCT session FROM consumers")]
        gone = [session for session in sessions if not alive(session)]
        for session in gone:
            rows = self.connection.execute("SELECT id FROM consumers WHERE session = ?", (session,)).fetchall()
            for (consumer,) in rows:
                self.remove_consumer(consumer)
        expired = self.connection.execute(
            "SELECT name FROM queues q WHERE expires IS NOT NULL AND last_used + expires < ?"
            " AND NOT EXISTS (SELECT 1 FROM consumers c WHERE c.queue = q.name)",
            (time.time(),),
        ).fetchall()
        for (queue,) in expired:
            self.delete(queue)
        return bool(gone)

    def _touch(self, queue: str) -> None:
        self.connection.execute("UPDATE queues SET last_used = ? WHERE name = ?", (time.time(), queue))

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        return row
