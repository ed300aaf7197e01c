"""Both stores behave like a dict with versions, whatever is done to them."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from coflows.errors import ConflictError
from coflows.store import Store, open_store

KEYS = st.sampled_from(["a", "a:", "a:b", "a:b:c", "ab", "b", "\u00e9", "\U0001f600"])
VALUES = st.binary(max_size=8)


def machine(url: str, path: Path) -> type[RuleBasedStateMachine]:
    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.namespace = secrets.token_hex(8)
            self.handles: list[Store] = [self.open(), self.open()]
            self.model: dict[str, tuple[bytes, int]] = {}
            self.last = 0

        def open(self) -> Store:
            return open_store(url, namespace=self.namespace, default_path=path)

        @rule(
            handle=st.integers(0, 1),
            writes=st.dictionaries(KEYS, VALUES, max_size=3),
            deletes=st.sets(KEYS, max_size=2),
            on=st.dictionaries(KEYS, st.booleans(), max_size=2),
        )
        def commit(self, handle: int, writes: dict[str, bytes], deletes: set[str], on: dict[str, bool]) -> None:
            deletes -= writes.keys()
            now = {key: self.model.get(key, (b"", 0))[1] for key in on}
            conditions = {key: version if on[key] else version + 1 for key, version in now.items()}
            try:
                version = self.handles[handle].commit(writes, deletes=deletes, conditions=conditions)
            except ConflictError as error:
                assert set(error.keys) == {key for key, right in on.items() if not right}
                return
            assert all(on.values())
            if writes:
                assert version > self.last
                self.last = version
            self.model |= {key: (value, version) for key, value in writes.items()}
            for key in deletes:
                self.model.pop(key, None)

        @rule(handle=st.integers(0, 1))
        def reopen(self, handle: int) -> None:
            self.handles[handle].close()
            self.handles[handle] = self.open()

        @rule(handle=st.integers(0, 1), prefix=st.sampled_from(["", "a", "a:", "b"]), start=KEYS, end=KEYS)
        def scan(self, handle: int, prefix: str, start: str, end: str) -> None:
            found = self.handles[handle].keys(prefix, start=start, end=end)
            low, high = start.encode(), end.encode()
            expected = [key for key in self.model if key.startswith(prefix) and low <= key.encode() < high]
            assert found == sorted(expected, key=str.encode)

        @invariant()
        def both_handles_agree_with_the_model(self) -> None:
            for store in self.handles:
                assert {entry.key: (entry.value, entry.version) for entry in store.scan()} == self.model

        def teardown(self) -> None:
            for store in self.handles:
                store.close()

    return Machine


def check(url: str, examples: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            machine(url, Path(folder) / "s.db"),
            settings=settings(
                max_examples=examples, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
            ),
        )


def test_sqlite_is_a_dict_with_versions() -> None:
    check("sqlite://", 25)


@pytest.mark.postgres
def test_postgres_is_a_dict_with_versions(postgres_url: str) -> None:
    check(postgres_url, 15)
