"""Stores that fill up, are locked, go away, or are cut off in the middle of a group of commits."""

from __future__ import annotations

import os
import secrets
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from coflows.errors import ConflictError, StoreError
from coflows.store import open_store, postgres_group
from coflows.store.commits import Commit, checked_commit
from coflows.store.group import Outcome
from coflows.store.planning import GroupPlan
from coflows.store.postgres import PostgresStore
from tests.chaos.world import Load, Worlds
from tests.services.postgres import Postgres
from tests.services.proxy import Proxy

pytestmark = pytest.mark.timeout(240)
KILLS = 20
FULL = 3.0
"""Seconds that the disk stays full."""


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server of this module's own, to do it harm."""
    server = Postgres()
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def through_proxy(postgres: Postgres) -> Iterator[tuple[PostgresStore, Proxy]]:
    proxy = Proxy(postgres.url)
    store = open_store(proxy.url, namespace=secrets.token_hex(8))
    assert isinstance(store, PostgresStore)
    yield store, proxy
    store.close()
    proxy.close()


@pytest.mark.postgres
def test_a_group_of_commits_cut_off_at_any_byte(
    through_proxy: tuple[PostgresStore, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit of the group gets its own outcome, and none is applied twice."""
    store, proxy = through_proxy
    store.commit({"n": b"0"})
    answers_lost: list[int] = []
    replayed = store._groups._replayed

    def replay(commits: list[Commit], start: int, refused: str) -> list[Outcome]:
        answers_lost.append(start)
        return replayed(commits, start, refused)

    monkeypatch.setattr(store._groups, "_replayed", replay)

    def apply(number: int) -> None:
        entry = store.get("n")
        assert entry is not None
        before = store.commit({"here": b""})
        version = entry.version
        commits = [
            checked_commit({"n": b"%d" % number}, (), {"n": version}),
            checked_commit({"refused": b""}, (), {"n": version, "other": 7}),
            checked_commit(None, (), {"n": before + 1}),
            checked_commit({f"k{number}": b"x"}, store.keys("k"), {"n": before + 1, f"k{number}": 0}),
        ]
        first, second, third, fourth = store._apply(commits)
        assert isinstance(second, ConflictError) and second.keys == ("n", "other")
        assert (first, third, fourth) == (before + 1, before + 1, before + 2)

    for number in range(1, 4):
        proxy.cut()  # As each of the connections below, it is a new one, whose statements are not prepared yet.
        apply(number)
        before = len(proxy.said)
        apply(number + 3)
        length = len(proxy.said) - before
    offsets = [*range(0, length, 29), *range(length - 12, length + 6)]
    for number, offset in enumerate(offsets, 7):
        proxy.cut_after(offset)
        apply(number)
    assert answers_lost, "no cut fell between a commit and its answer"
    assert [entry.value for entry in store.scan("k")] == [b"x"], "each deleted the one before it, once"


@pytest.mark.postgres
def test_backends_killed_under_load(postgres: Postgres) -> None:
    """Conditional increments of many threads: as many as were told they succeeded."""
    store = open_store(postgres.url, namespace=secrets.token_hex(8))
    store.commit({"n": b"0"})
    ended, succeeded = threading.Event(), [0] * 8

    def increment(number: int) -> None:
        while not ended.is_set():
            entry = store.get("n")
            assert entry is not None
            try:
                store.commit(
                    {"n": b"%d" % (int(entry.value) + 1), f"own{number}": b""}, conditions={"n": entry.version}
                )
                succeeded[number] += 1
            except ConflictError:
                continue

    threads = [threading.Thread(target=increment, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    with psycopg.connect(postgres.url, autocommit=True) as admin:
        for _ in range(KILLS):
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
            admin.execute("SELECT pg_sleep(0.25)")
    ended.set()
    for thread in threads:
        thread.join()
    entry = store.get("n")
    assert entry is not None and int(entry.value) == sum(succeeded) > KILLS
    store.close()


@pytest.mark.postgres
def test_a_writer_that_falls_silent_holds_nobody_up(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a transaction: the server ends it, others go on, and it begins anew when it comes to."""
    name = secrets.token_hex(8)
    silent, other = open_store(postgres.url, namespace=name), open_store(postgres.url, namespace=name)
    assert isinstance(silent, PostgresStore) and silent._connection is not None
    silent._connection.execute("SET idle_in_transaction_session_timeout = '200ms'")
    began, go_on = threading.Event(), threading.Event()

    class Silent(GroupPlan):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            if threading.current_thread() is thread:
                began.set()
                go_on.wait(60)

    monkeypatch.setattr(postgres_group, "GroupPlan", Silent)
    versions: list[int] = []
    thread = threading.Thread(target=lambda: versions.append(silent.commit({"a": b"silent"})))
    thread.start()
    began.wait(60)
    versions.append(other.commit({"a": b"other"}))
    go_on.set()
    thread.join()
    entry = other.get("a")
    assert entry is not None and entry.value == b"silent" and entry.version == versions[1] > versions[0]
    for store in (silent, other):
        store.close()


@pytest.mark.postgres
@pytest.mark.rabbitmq
@pytest.mark.parametrize("how", ["fast", "immediate"])
def test_postgres_restarted_under_load(how: str, postgres: Postgres, worlds: Worlds) -> None:
    with worlds(store_url=postgres.url) as made:
        for user in ("alice", "alice", "bob"):
            made.worker(user)
        load = Load(made.witnesses(6, 2))
        ended = threading.Event()
        sending = threading.Thread(target=load.send_until, args=(ended,))
        sending.start()
        for _ in range(2):
            load.wait_for(load.count + 80)
            postgres.halt(how)
            postgres.start()
        load.wait_for(load.count + 80)
        ended.set()
        sending.join()
        verdict = load.verdict()
        assert verdict.good, verdict


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, that a test can fill."""
    if os.geteuid() != 0:
        pytest.skip("Only root can mount a file system.")
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.rabbitmq
def test_a_full_disk(small_disk: Path, worlds: Worlds) -> None:
    """What cannot be committed waits, and is worked off once there is space again."""
    with worlds(store_url=f"sqlite:///{small_disk}/store.db") as made:
        for user in ("alice", "bob"):
            made.worker(user)
        load = Load(made.witnesses(6, 2))
        load.send(5)
        load.wait()
        filler = small_disk / "filler"
        _fill(filler)
        with pytest.raises(StoreError, match="disk is full"):
            while True:  # The write-ahead log may have some space left over.
                made.alice.store.commit({"probe": os.urandom(4096)})
        ended = load.answered
        load.send(5)
        time.sleep(FULL)
        assert load.answered == ended, "the disk was not full"
        filler.unlink()
        load.send(5)
        verdict = load.verdict()
        assert verdict.good, verdict


def _fill(filler: Path) -> None:
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"\0" * size) == size:
                    continue
            except OSError:
                continue


@pytest.mark.rabbitmq
@pytest.mark.parametrize("seconds", [2.0, 12.0])
def test_a_store_locked_by_another_process(seconds: float, worlds: Worlds, tmp_path: Path) -> None:
    """For a while, and for longer than the store waits (10 s)."""
    file = tmp_path / "store.db"
    with worlds(store_url=f"sqlite:///{file}") as made:
        for user in ("alice", "bob"):
            made.worker(user)
        load = Load(made.witnesses(6, 2))
        load.send(5)
        lock = sqlite3.connect(file, isolation_level=None, timeout=30)
        lock.execute("BEGIN IMMEDIATE")
        load.send(5)
        threading.Event().wait(seconds)
        lock.execute("ROLLBACK")
        lock.close()
        load.send(5)
        verdict = load.verdict()
        assert verdict.good, verdict
