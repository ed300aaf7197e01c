"""What both adapters share: checks, the read queries, group commit and watches over a database's own parts."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from coflows.errors import StoreError, StoreUnavailableError
from coflows.store.base import Entry, Store, Watch, When
from coflows.store.commits import Commit, checked_commit
from coflows.store.group import GroupWriter, Outcome
from coflows.store.keys import check_key, key_range
from coflows.store.watching import Change, ChangeFeed, Changes, Signal, WatchHub

RETAINED_CHANGES = 50_000
"""Length of the change log. A watch that falls further behind compares the keys instead."""

_GET = "SELECT value, version FROM coflows_entries WHERE namespace = ? AND key = ?"
_GET_MANY = "SELECT key, value, version FROM coflows_entries WHERE namespace = ? AND key IN ({})"
MAX_KEYS = 256
_RANGE = "SELECT {columns} FROM coflows_entries WHERE namespace = ? AND key >= ?"
# One statement sees one moment: the end of the log and what goes with it.
_CHANGES = (
    "SELECT n.log_end, n.log_floor, c.id, c.key, c.deleted FROM coflows_namespaces n"
    " LEFT JOIN coflows_changes c ON c.namespace = n.id AND c.id > ? WHERE n.id = ? ORDER BY c.id"
)
_SNAPSHOT = (
    "SELECT n.log_end, e.key FROM coflows_namespaces n"
    " LEFT JOIN coflows_entries e ON e.namespace = n.id AND e.key >= ?{end} WHERE n.id = ?"
)


class AdapterStore(Store, ChangeFeed):
    """A store over three tables: namespaces (id, name, version, log_end, log_floor), entries (namespace, key, value,
    version) and changes (namespace, id, key, deleted).

    ``version`` is the last one given. A commit is logged only while somebody watches; ``log_end`` counts logged and
    unlogged ones alike, and whoever has read less than ``log_floor`` has missed some.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._namespace = 0
        self._closed = False
        self._process = os.getpid()
        self._writer = GroupWriter(self._apply, url)
        self._hub = WatchHub(self, url)

    @abstractmethod
    def _fetch(self, query: str, parameters: tuple[object, ...]) -> list[Any]:
        """The rows of a query with ``?`` for parameters."""

    @abstractmethod
    def _apply(self, commits: list[Commit]) -> list[Outcome]:
        """One transaction, durable when it returns. Calls do not overlap."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close all connections; nothing else runs any more, save reads that are about to end."""

    def get(self, key: str) -> Entry | None:
        self._check_open()
        for value, version in self._fetch(_GET, (self._namespace, check_key(key))):
            return Entry(key, value, version)
        return None

    def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        self._check_open()
        wanted = list(dict.fromkeys(check_key(key) for key in keys))
        found: dict[str, Entry] = {}
        for first in range(0, len(wanted), MAX_KEYS):
            part = wanted[first : first + MAX_KEYS]
            # Few lengths are few statements, which the database prepares once.
            part += part[-1:] * (_length(len(part)) - len(part))
            rows = self._fetch(_GET_MANY.format(", ".join("?" * len(part))), (self._namespace, *part))
            found.update((row[0], Entry(*row)) for row in rows)
        return found

    def scan(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int | None = None
    ) -> list[Entry]:
        return [Entry(*row) for row in self._select("key, value, version", prefix, start, end, limit)]

    def keys(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int | None = None
    ) -> list[str]:
        return [key for (key,) in self._select("key", prefix, start, end, limit)]

    def commit(
        self,
        writes: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        conditions: Mapping[str, int] | None = None,
    ) -> int:
        commit = checked_commit(writes, deletes, conditions)
        self._check_open()
        return self._writer.commit(commit)

    def commit_async(
        self,
        done: Callable[[int | StoreError], None],
        writes: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        conditions: Mapping[str, int] | None = None,
        *,
        when: When = When.SOON,
    ) -> None:
        commit = checked_commit(writes, deletes, conditions)
        self._check_open()
        self._writer.commit_async(commit, done, when=when)

    def watch(self, prefix: str, callback: Callable[[frozenset[str]], None]) -> Watch:
        self._check_open()
        return self._hub.watch(prefix, callback)

    def close(self) -> None:
        # A forked child shares the connections with its parent, who still uses them.
        if self._process != os.getpid():
            return
        self._hub.close()
        self._writer.close()
        self._closed = True
        self._disconnect()

    def changes(self, after: int) -> Changes:
        rows = self._fetch(_CHANGES, (after, self._namespace))
        end, floor = rows[0][:2]
        items = [Change(row[2], row[3], bool(row[4])) for row in rows if row[2] is not None]
        return Changes(end, after >= floor, items)

    def snapshot(self, prefix: str) -> tuple[int, set[str]]:
        low, high = key_range(prefix, None, None)
        query = _SNAPSHOT.format(end="" if high is None else " AND e.key < ?")
        bounds = (low,) if high is None else (low, high)
        rows = self._fetch(query, (*bounds, self._namespace))
        return rows[0][0], {key for _, key in rows if key is not None}

    @abstractmethod
    def open_signal(self) -> Signal: ...

    def _select(self, columns: str, prefix: str, start: str | None, end: str | None, limit: int | None) -> list[Any]:
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}; expected None or a number from 0 on")
        self._check_open()
        low, high = key_range(prefix, start, end)
        query = _RANGE.format(columns=columns)
        parameters: list[object] = [self._namespace, low]
        if high is not None:
            query += " AND key < ?"
            parameters.append(high)
        query += " ORDER BY key"
        if limit is not None:
            query += " LIMIT ?"
            parameters.append(limit)
        return self._fetch(query, tuple(parameters))

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"The store {self.url} was closed.", hint="Open it again.")
        if self._process != os.getpid():
            raise StoreUnavailableError(
                f"The store {self.url} was opened by process {self._process}, before this one was forked from it.",
                hint="Open it in the process that uses it.",
            )


def _length(count: int) -> int:
    """The next power of two."""
    return 1 << (count - 1).bit_length()
