"""What every store must do. A subclass gives ``open_store``: a fixture that opens a namespace of one store."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from coflows.errors import ConflictError, SerializationError, StoreError, StoreUnavailableError
from coflows.store import ABSENT, Store
from coflows.store.base import When

PATIENCE = 30.0
OpenStore = Callable[..., Store]
AWKWARD = ["a", "a%", "a%b", "a_b", "a\\b", "aa", "b", "z\x01", "\u00e9", "\ud7ff", "\ue000", "\U0001f600"]


class Changes:
    """What a watch told."""

    def __init__(self) -> None:
        self.keys: set[str] = set()
        self._changed = threading.Condition()

    def __call__(self, keys: frozenset[str]) -> None:
        with self._changed:
            self.keys |= keys
            self._changed.notify_all()

    def wait_for(self, *keys: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: set(keys) <= self.keys, PATIENCE), self.keys


class StoreContract:
    @pytest.fixture
    def store(self, open_store: OpenStore) -> Store:
        return open_store()

    def test_what_was_written_is_read(self, store: Store) -> None:
        version = store.commit({"a": b"1", "b": bytes(range(256)), "empty": b""})
        entry = store.get("b")
        assert entry is not None and (entry.key, entry.value, entry.version) == ("b", bytes(range(256)), version)
        assert [entry.value for entry in store.scan("empty")] == [b""]
        assert store.get("c") is None

    def test_versions_only_grow(self, open_store: OpenStore) -> None:
        store = open_store()
        versions = [store.commit({"a": b"1"}), store.commit({"a": b"1"})]
        store.commit(deletes=["a"])
        versions.append(store.commit({"a": b"1"}))
        store.close()
        versions.append(open_store().commit({"a": b"1"}))
        assert versions == sorted(set(versions))

    def test_keys_are_ordered_by_their_bytes(self, store: Store) -> None:
        store.commit(dict.fromkeys(AWKWARD, b""))
        assert store.keys() == sorted(AWKWARD, key=str.encode)

    @pytest.mark.parametrize("prefix", ["a", "a%", "a_", "a\\", "\ud7ff", "\U0001f600", "none"])
    def test_a_prefix_is_taken_literally(self, store: Store, prefix: str) -> None:
        store.commit(dict.fromkeys(AWKWARD, b""))
        assert store.keys(prefix) == sorted((key for key in AWKWARD if key.startswith(prefix)), key=str.encode)

    def test_bounds_hold_together(self, store: Store) -> None:
        store.commit({f"k{number}": b"%d" % number for number in range(10)})
        assert store.keys("k", start="k3", end="k7") == ["k3", "k4", "k5", "k6"]
        assert [entry.key for entry in store.scan("k", start="k3", limit=2)] == ["k3", "k4"]
        assert store.keys("k", limit=0) == [] and store.keys("k", start="l") == []

    def test_a_condition_that_does_not_hold_refuses_the_whole_commit(self, store: Store) -> None:
        version = store.commit({"a": b"1", "b": b"1"})
        with pytest.raises(ConflictError) as caught:
            store.commit({"a": b"2", "c": b"2"}, deletes=["b"], conditions={"a": version, "b": version + 1})
        assert caught.value.keys == ("b",)
        assert [(entry.key, entry.value) for entry in store.scan()] == [("a", b"1"), ("b", b"1")]

    def test_absent_means_not_there(self, store: Store) -> None:
        store.commit({"a": b"1"}, conditions={"a": ABSENT})
        with pytest.raises(ConflictError):
            store.commit({"a": b"2"}, conditions={"a": ABSENT})
        store.commit(deletes=["a"])
        store.commit({"a": b"3"}, conditions={"a": ABSENT})

    def test_a_key_is_not_both_written_and_deleted(self, store: Store) -> None:
        with pytest.raises(ValueError, match="both"):
            store.commit({"a": b"1"}, deletes=["a"])

    @pytest.mark.parametrize("key", ["", "a\0b", "x" * 1025, "\ud800", 3])
    def test_a_bad_key_is_told(self, store: Store, key: str) -> None:
        with pytest.raises(SerializationError):
            store.commit({key: b""})

    def test_conditional_increments_of_many_threads_are_all_counted(self, store: Store) -> None:
        store.commit({"n": b"0"})

        def increment() -> None:
            for _ in range(10):
                while True:
                    entry = store.get("n")
                    assert entry is not None
                    try:
                        store.commit({"n": b"%d" % (int(entry.value) + 1)}, conditions={"n": entry.version})
                        break
                    except ConflictError:
                        continue

        threads = [threading.Thread(target=increment) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        entry = store.get("n")
        assert entry is not None and entry.value == b"80"

    def test_what_follows_a_commit_may_commit(self, store: Store) -> None:
        """Also while others' commits wait for the thread on which it follows."""
        ended, told = threading.Event(), list[int | StoreError]()

        def follow(outcome: int | StoreError) -> None:
            store.commit_async(told.append, {"waits": b"1"}, when=When.SOON)
            told.append(outcome)
            told.append(store.commit({"follows": b"1"}))
            ended.set()

        store.commit_async(follow, {"first": b"1"}, when=When.SOON)
        assert ended.wait(PATIENCE)
        store.commit({"last": b"1"})
        assert {entry.key for entry in store.scan()} == {"first", "follows", "last", "waits"}
        assert len(told) == 3 and all(isinstance(one, int) for one in told)

    def test_two_handles_see_one_store(self, open_store: OpenStore) -> None:
        first, second = open_store(), open_store()
        first.commit({"a": b"1"})
        entry = second.get("a")
        assert entry is not None and entry.value == b"1"
        with pytest.raises(ConflictError):
            second.commit({"a": b"2"}, conditions={"a": ABSENT})

    def test_namespaces_do_not_see_each_other(self, open_store: OpenStore) -> None:
        mine, other = open_store("mine"), open_store("other")
        mine.commit({"a": b"1"})
        assert other.get("a") is None and other.keys() == []
        other.commit(deletes=["a"])
        assert mine.get("a") is not None

    def test_what_was_committed_is_there_after_reopening(self, open_store: OpenStore) -> None:
        first = open_store()
        first.commit({f"k{number}": b"v" * 100 for number in range(2000)})
        first.close()
        assert len(open_store().keys("k")) == 2000

    def test_a_watch_tells_writes_and_deletes_of_every_handle(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        store.commit({"w:old": b"1"})
        changes = Changes()
        store.watch("w:", changes)
        store.commit({"w:a": b"1", "x:a": b"1"})
        other.commit({"w:b": b"1"}, deletes=["w:old"])
        changes.wait_for("w:a", "w:b", "w:old")
        assert "x:a" not in changes.keys

    def test_a_watch_misses_nothing(self, open_store: OpenStore) -> None:
        store, other = open_store(), open_store()
        changes = Changes()
        store.watch("", changes)
        keys = [f"k{number}" for number in range(300)]
        for key in keys:
            other.commit({key: b""})
        changes.wait_for(*keys)

    def test_a_closed_watch_tells_nothing_more(self, store: Store) -> None:
        closed, open_ = Changes(), Changes()
        watch = store.watch("", closed)
        store.watch("", open_)
        watch.close()
        watch.close()
        store.commit({"a": b""})
        open_.wait_for("a")
        assert closed.keys == set()

    def test_a_closed_store_says_so(self, open_store: OpenStore) -> None:
        store = open_store()
        store.close()
        store.close()
        with pytest.raises(StoreUnavailableError):
            store.get("a")
        with pytest.raises(StoreUnavailableError):
            store.commit({"a": b""})
