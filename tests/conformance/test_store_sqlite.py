"""The SQLite store passes the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coflows.store import Store, open_store
from tests.conformance.store_contract import StoreContract


class TestSqlite(StoreContract):
    @pytest.fixture
    def open_store(self, tmp_path: Path) -> Iterator[Callable[..., Store]]:
        opened: list[Store] = []

        def one_more(namespace: str = "mine") -> Store:
            opened.append(open_store("sqlite://", namespace=namespace, default_path=tmp_path / "folder" / "s.db"))
            return opened[-1]

        yield one_more
        for store in opened:
            store.close()
