"""The file of the embedded broker: its tables, and what each operation does to them inside a transaction.

Messages of a queue belong to whom? With one consumer that may take (the only one, or the first of a single-active
queue), all up to the number that it has ``reserved`` are his, and taking them writes nothing. Where several share a
queue, each message says who has it. Whatever changes who may take raises the version of the topology, and who takes or
publishes checks that it is the one he knows.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from coflows.broker.base import QueueSpec
from coflows.broker.embedded_topology import Claim, Subscriber, Topology
from coflows.errors import BrokerUnavailableError, QueueMismatchError, UnroutableError
from coflows.ownership import check_owner

_SCHEMA_VERSION = 1
_SCHEMA = f"""
BEGIN;
CREATE TABLE topology (version INTEGER NOT NULL);
INSERT INTO topology VALUES (1);
CREATE TABLE queues (
    id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, single_active INTEGER NOT NULL, expires REAL,
    dead_letter TEXT, last_used REAL NOT NULL
);
CREATE TABLE consumers (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, name TEXT NOT NULL, session TEXT NOT NULL,
    reserved INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE messages (
    id INTEGER PRIMARY KEY AUTOINCREMENT, queue INTEGER NOT NULL, consumer INTEGER,
    redelivered INTEGER NOT NULL DEFAULT 0, origin TEXT, reason TEXT, body BLOB NOT NULL
);
CREATE INDEX consumers_by_queue ON consumers (queue, id);
CREATE INDEX messages_by_queue ON messages (queue, id);
CREATE INDEX claimed ON messages (consumer) WHERE consumer IS NOT NULL;
PRAGMA user_version = {_SCHEMA_VERSION};
COMMIT;
"""
_MOST = 256
_NEWS = (
    "SELECT version, 0 FROM topology UNION ALL SELECT * FROM (SELECT id, queue FROM messages WHERE id > ? ORDER BY id)"
)
_MESSAGE = "SELECT body, redelivered, origin, reason FROM messages WHERE id = ? AND (consumer IS NULL OR consumer = ?)"
_READY = "SELECT id FROM messages WHERE queue = ? AND id > ? AND (consumer IS NULL OR consumer = ?) ORDER BY id LIMIT ?"


class BrokerFile:
    """Used by one thread at a time. Methods that change something are called inside a transaction that their caller
    begins, with ``refresh`` first, and commits."""

    def __init__(self, path: Path) -> None:
        path.touch(mode=0o600)
        check_owner(path)
        self.connection = sqlite3.connect(path, timeout=30.0, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA journal_mode=WAL")
        # A commit is seen at once; what must be on disk, somebody waits for (see WriteAheadLog).
        self.connection.execute("PRAGMA synchronous=NORMAL")
        self.topology = Topology()
        version = self._one("PRAGMA user_version")
        if version == (0,) and self._one("SELECT 1 FROM sqlite_master") is None:
            self.connection.executescript(_SCHEMA)
        elif version != (_SCHEMA_VERSION,):
            raise BrokerUnavailableError(
                f"The embedded broker's file {path} was made by another version of coflows.",
                hint="Let that version work off what is in it, then remove the folder; or use another one.",
            )

    def refresh(self) -> bool:
        """Read the topology anew if it has changed; whether it had."""
        (version,) = self._row("SELECT version FROM topology")
        if version == self.topology.version:
            return False
        topology = Topology(version)
        rows = self.connection.execute(
            "SELECT c.id, c.queue, c.session, q.single_active FROM consumers c JOIN queues q ON q.id = c.queue"
            " ORDER BY c.id"
        )
        for consumer, queue, session, single_active in rows:
            topology.lines.setdefault(queue, []).append(Subscriber(consumer, queue, session))
            if single_active:
                topology.single_active.add(queue)
        self.topology = topology
        return True

    # -- queues ------------------------------------------------------------------------------------------------

    def declare(self, spec: QueueSpec) -> None:
        """Make a queue, or check that it is as asked for."""
        row = self._one("SELECT single_active, expires, dead_letter FROM queues WHERE name = ?", spec.name)
        if row is None:
            made = self._insert(
                "INSERT INTO queues (name, single_active, expires, dead_letter, last_used) VALUES (?, ?, ?, ?, ?)",
                (spec.name, spec.single_active, spec.expires, spec.dead_letter_queue, time.time()),
            )
            # Those who consumed a queue of this name that was deleted go on.
            again = self.connection.execute(
                "UPDATE consumers SET queue = ?, reserved = 0 WHERE name = ?", (made, spec.name)
            )
            if again.rowcount:
                self._changed()
            return
        there = QueueSpec(spec.name, bool(row[0]), row[1], row[2])
        if there != spec:
            raise QueueMismatchError(
                f"Queue {spec.name} exists as {there}, and was now declared as {spec}.",
                hint="Delete the queue, or use another dispatch point.",
            )

    def find(self, queue: str) -> int | None:
        """The id of a queue, or None; after ``refresh`` it need not be in a transaction."""
        known = self.topology.queues.get(queue)
        if known is None:
            row = self._one("SELECT id FROM queues WHERE name = ?", queue)
            if row is None:
                return None
            known = self.topology.queues[queue] = int(row[0])
        return known

    def require(self, queue: str) -> int:
        """The id of a queue; UnroutableError when there is none."""
        found = self.find(queue)
        if found is None:
            raise UnroutableError(f"There is no queue {queue}.")
        return found

    def delete(self, queue: str) -> None:
        """Delete a queue and what it holds."""
        found = self.find(queue)
        if found is not None:
            self.connection.execute("DELETE FROM queues WHERE id = ?", (found,))
            self.connection.execute("DELETE FROM messages WHERE queue = ?", (found,))
            self._changed()

    def has_expired_queues(self) -> bool:
        """Whether there are queues that outlived their expiry."""
        return bool(self._expired())

    def delete_expired_queues(self) -> None:
        """Delete queues that nobody has consumed for longer than they were to be kept."""
        for (queue,) in self._expired():
            self.delete(queue)

    def _expired(self) -> list[tuple[str]]:
        return self.connection.execute(
            "SELECT name FROM queues q WHERE expires IS NOT NULL AND last_used + expires < ?"
            " AND NOT EXISTS (SELECT 1 FROM consumers c WHERE c.queue = q.id)",
            (time.time(),),
        ).fetchall()

    # -- consumers ---------------------------------------------------------------------------------------------

    def add_consumer(self, queue: str, session: str) -> int:
        """Line up as the last consumer of a queue."""
        found = self.require(queue)
        if self._one("SELECT 1 FROM queues WHERE id = ? AND single_active", found) is None:
            self.share(found)
        self._touch(found)
        row = (found, queue, session)
        consumer = self._insert("INSERT INTO consumers (queue, name, session) VALUES (?, ?, ?)", row)
        self._changed()
        return consumer

    def add_getter(self, session: str) -> int:
        """One who takes single messages, of any queue."""
        return self._insert("INSERT INTO consumers (queue, name, session) VALUES (0, '', ?)", (session,))

    def remove_consumer(self, consumer: int, taken: Iterable[int] | None) -> None:
        """Leave, and give back what was taken; ``None``: nobody can tell, for the consumer is dead."""
        row = self._one("SELECT queue, reserved FROM consumers WHERE id = ?", consumer)
        if row is None:
            return
        self.connection.execute("DELETE FROM consumers WHERE id = ?", (consumer,))
        self.connection.execute("UPDATE messages SET consumer = NULL, redelivered = 1 WHERE consumer = ?", (consumer,))
        if taken is None:
            self.connection.execute("UPDATE messages SET redelivered = 1 WHERE queue = ? AND id <= ?", row)
        else:
            self.connection.executemany("UPDATE messages SET redelivered = 1 WHERE id = ?", [(one,) for one in taken])
        self._touch(row[0])
        self._changed()

    def remove_session(self, session: str) -> None:
        """Remove all consumers of a process that is gone."""
        rows = self.connection.execute("SELECT id FROM consumers WHERE session = ?", (session,)).fetchall()
        for (consumer,) in rows:
            self.remove_consumer(consumer, None)

    def sessions(self) -> list[str]:
        """All that have consumers, or getters."""
        return [session for (session,) in self.connection.execute("SELECT DISTINCT session FROM consumers")]

    def share(self, queue: int) -> None:
        """From now on the messages of this queue say who has them."""
        rows = self.connection.execute(
            "SELECT id, queue, reserved FROM consumers WHERE queue = ? AND reserved > 0", (queue,)
        ).fetchall()
        for row in rows:
            self.connection.execute(
                "UPDATE messages SET consumer = ? WHERE consumer IS NULL AND queue = ? AND id <= ?", row
            )
            self.connection.execute("UPDATE consumers SET reserved = 0 WHERE id = ?", row[:1])
        if rows:
            self._changed()

    def reserve(self, consumer: int, upto: int) -> None:
        """All messages of its queue, up to this one, belong to a consumer that is the only one who may take."""
        self.connection.execute("UPDATE consumers SET reserved = ? WHERE id = ?", (upto, consumer))

    # -- messages ----------------------------------------------------------------------------------------------

    def publish(self, queue: str, body: bytes) -> int:
        """Append a message; gives the queue's id."""
        found = self.require(queue)
        self.connection.execute("INSERT INTO messages (queue, body) VALUES (?, ?)", (found, body))
        return found

    def publish_one(self, queue: str, body: bytes) -> int | None:
        """``publish`` as a transaction of its own; None, and nothing is done, when the queue is not among those that
        are known here, or what is known may be too old."""
        found = self.topology.queues.get(queue)
        if found is None:
            return None
        cursor = self.connection.execute(
            "INSERT INTO messages (queue, body) SELECT ?, ? WHERE (SELECT version FROM topology) = ?",
            (found, body, self.topology.version),
        )
        return found if cursor.rowcount == 1 else None

    def news(self, after: int) -> tuple[int, list[tuple[int, int]]]:
        """The version of the topology, and ids and queues of the messages after one, at one moment."""
        rows: list[tuple[int, int]] = self.connection.execute(_NEWS, (after,)).fetchall()
        return rows[0][0], rows[1:]

    def newest(self) -> int:
        """The last message's id, 0 when there is none."""
        return int(self._row("SELECT coalesce(max(id), 0) FROM messages")[0])

    def ready(self, queue: int, after: int, consumer: int, limit: int) -> list[int]:
        """The oldest messages after one that nobody else has."""
        return [row[0] for row in self.connection.execute(_READY, (queue, after, consumer, limit))]

    def read(self, message: int, consumer: int) -> Claim | None:
        """A message, if it is there and nobody else has it."""
        row = self._one(_MESSAGE, message, consumer)
        return None if row is None else Claim(message, row[0], bool(row[1]), row[2], row[3])

    def claim(self, messages: Iterable[int], consumer: int) -> None:
        """Mark messages of a shared queue as a consumer's."""
        rows = [(consumer, message) for message in messages]
        self.connection.executemany("UPDATE messages SET consumer = ? WHERE id = ?", rows)

    def remove(self, messages: Sequence[int]) -> None:
        """These are done with."""
        for first in range(0, len(messages), _MOST):
            part = list(messages[first : first + _MOST])
            part += part[-1:] * ((1 << (len(part) - 1).bit_length()) - len(part))  # few different statements
            self.connection.execute(f"DELETE FROM messages WHERE id IN ({', '.join('?' * len(part))})", part)

    def requeue(self, message: int) -> None:
        """Give it back to its old place."""
        self.connection.execute("UPDATE messages SET consumer = NULL, redelivered = 1 WHERE id = ?", (message,))
        self._changed()

    def reject(self, message: int, reason: str) -> int | None:
        """Move it to the dead letters of its queue, or drop it where there are none; gives the queue that it went
        to."""
        row = self._one(
            "SELECT q.name, m.body, d.id FROM messages m JOIN queues q ON q.id = m.queue"
            " LEFT JOIN queues d ON d.name = q.dead_letter WHERE m.id = ?",
            message,
        )
        if row is None:
            return None
        self.connection.execute("DELETE FROM messages WHERE id = ?", (message,))
        if row[2] is None:
            return None
        self.connection.execute(
            "INSERT INTO messages (queue, body, origin, reason) VALUES (?, ?, ?, ?)", (row[2], row[1], row[0], reason)
        )
        return int(row[2])

    # -- inside ------------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self.connection.execute("UPDATE topology SET version = version + 1")

    def _touch(self, queue: int) -> None:
        self.connection.execute("UPDATE queues SET last_used = ? WHERE id = ?", (time.time(), queue))

    def _insert(self, statement: str, values: tuple[object, ...]) -> int:
        cursor = self.connection.execute(statement, values)
        assert cursor.lastrowid is not None
        return cursor.lastrowid

    def _one(self, query: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self.connection.execute(query, values).fetchone()
        return row

    def _row(self, query: str) -> tuple[Any, ...]:
        row = self._one(query)
        assert row is not None
        return row
