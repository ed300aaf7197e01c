"""A group of commits inside one PostgreSQL transaction, and the record by which a lost answer is found again."""

from __future__ import annotations

import contextlib
import json
import secrets
from typing import Any

import psycopg

from coflows.store.adapter import RETAINED_CHANGES
from coflows.store.commits import Commit, conflict
from coflows.store.group import Outcome
from coflows.store.planning import GroupPlan, condition_keys

SCHEMA = """
CREATE TABLE IF NOT EXISTS coflows_writers (
    namespace BIGINT NOT NULL, id BYTEA NOT NULL, last_group BIGINT NOT NULL, start BIGINT NOT NULL,
    refused TEXT NOT NULL, at TIMESTAMPTZ NOT NULL, PRIMARY KEY (namespace, id)
);
"""
FORGET = "DELETE FROM coflows_writers WHERE namespace = %s AND at < now() - interval '1 day'"
"""The records of writers that are gone."""
_HEAD = "SELECT version, log_end, log_floor FROM coflows_namespaces WHERE id = %s FOR UPDATE"
_RECORD = "SELECT start, refused FROM coflows_writers WHERE namespace = %s AND id = %s AND last_group = %s"
_VERSIONS = "SELECT key, version FROM coflows_entries WHERE namespace = %s AND key = ANY(%s)"
_UPSERT = (
    "INSERT INTO coflows_entries SELECT %s, * FROM unnest(%s::text[], %s::bytea[], %s::bigint[])"
    " ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value, version = excluded.version"
)
_DELETE = "DELETE FROM coflows_entries WHERE namespace = %s AND key = ANY(%s)"
_LOG = "INSERT INTO coflows_changes SELECT %s, * FROM unnest(%s::bigint[], %s::text[], %s::integer[])"
_TRIM = "DELETE FROM coflows_changes WHERE namespace = %s AND id <= %s"
_ADVANCE = "UPDATE coflows_namespaces SET version = %s, log_end = %s, log_floor = %s WHERE id = %s"
_REMEMBER = (
    "INSERT INTO coflows_writers VALUES (%s, %s, %s, %s, %s, now()) ON CONFLICT (namespace, id) DO UPDATE SET"
    " last_group = excluded.last_group, start = excluded.start, refused = excluded.refused, at = excluded.at"
)


class PostgresGroups:
    """The groups of one writer, one after the other. The record of the last one is written with it, so that its
    outcome is known when the connection was lost before the answer came. Not thread-safe."""

    def __init__(self, namespace: int, channel: str, url: str) -> None:
        self._namespace = namespace
        self._channel = channel
        self._url = url
        self._id = secrets.token_bytes(16)
        self._number = 0

    def begin(self) -> None:
        """Another group: what is written from now on is not the one before, tried again."""
        self._number += 1

    def apply(self, connection: psycopg.Connection[Any], commits: list[Commit]) -> list[Outcome]:
        """The group in one transaction, in two trips to the server; its outcomes, also when an attempt before this one
        was applied. Raises psycopg's errors."""
        try:
            with connection.pipeline() as pipeline:
                outcomes = self._transact(connection, pipeline, commits)
                # With what it ends, not after the answer to that: whoever falls silent in between would leave the
                # namespace locked.
                connection.execute("COMMIT")
        except psycopg.Error:
            with contextlib.suppress(psycopg.Error):
                connection.rollback()
            raise
        return outcomes

    def _transact(
        self, connection: psycopg.Connection[Any], pipeline: psycopg.Pipeline, commits: list[Commit]
    ) -> list[Outcome]:
        namespace = self._namespace
        connection.execute("BEGIN")
        head = connection.execute(_HEAD, (namespace,))
        record = connection.execute(_RECORD, (namespace, self._id, self._number))
        versions = connection.execute(_VERSIONS, (namespace, list(condition_keys(commits))))
        # Whoever stays silent after this is idle in its transaction, and the server ends it.
        pipeline.sync()
        version, log_end, log_floor = _row(head)
        applied = record.fetchone()
        if applied is not None:
            return self._replayed(commits, *applied)
        plan = GroupPlan(version, dict(versions.fetchall()))
        refused: dict[int, list[str]] = {}
        outcomes: list[Outcome] = []
        for number, commit in enumerate(commits):
            stale = plan.stale(commit)
            if stale:
                refused[number] = stale
            outcomes.append(conflict(self._url, stale) if stale else plan.add(commit))
        if plan.version != version:
            self._write(connection, plan, log_end, log_floor)
            parameters = (namespace, self._id, self._number, version, json.dumps(refused))
            connection.execute(_REMEMBER, parameters)
        return outcomes

    def _write(self, connection: psycopg.Connection[Any], plan: GroupPlan, log_end: int, log_floor: int) -> None:
        namespace = self._namespace
        written = [(key, *row) for key, row in plan.rows.items() if row is not None]
        gone = [key for key, row in plan.rows.items() if row is None]
        if written:
            keys, values, versions = map(list, zip(*written, strict=True))
            connection.execute(_UPSERT, (namespace, keys, values, versions))
        if gone:
            connection.execute(_DELETE, (namespace, gone))
        keys, deleted = map(list, zip(*plan.changes, strict=True))
        numbers = list(range(log_end + 1, log_end + 1 + len(keys)))
        connection.execute(_LOG, (namespace, numbers, keys, deleted))
        log_end += len(keys)
        # Trimmed a good part at a time, so that most commits have nothing to trim.
        if log_end - log_floor > RETAINED_CHANGES:
            log_floor = log_end - RETAINED_CHANGES // 2
            connection.execute(_TRIM, (namespace, log_floor))
        connection.execute(_ADVANCE, (plan.version, log_end, log_floor, namespace))
        connection.execute("SELECT pg_notify(%s, '')", (self._channel,))

    def _replayed(self, commits: list[Commit], start: int, refused: str) -> list[Outcome]:
        """What an attempt whose answer was lost has decided: the versions follow each other."""
        stale = {int(number): keys for number, keys in json.loads(refused).items()}
        outcomes: list[Outcome] = []
        version = start
        for number, commit in enumerate(commits):
            if number in stale:
                outcomes.append(conflict(self._url, stale[number]))
                continue
            version += 1 if commit.changes else 0
            outcomes.append(version)
        return outcomes


def _row(cursor: psycopg.Cursor[Any]) -> Any:
    row = cursor.fetchone()
    assert row is not None
    return row
