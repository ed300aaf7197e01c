"""The PostgreSQL store passes the contract."""

import secrets
from collections.abc import Callable, Iterator

import pytest

from coflows.store import Store, open_store
from tests.conformance.store_contract import StoreContract


@pytest.mark.postgres
class TestPostgres(StoreContract):
    @pytest.fixture
    def open_store(self, postgres_url: str) -> Iterator[Callable[..., Store]]:
        opened: list[Store] = []
        test = secrets.token_hex(8)

        def one_more(namespace: str = "mine") -> Store:
            opened.append(open_store(postgres_url, namespace=f"{test} {namespace}"))
            return opened[-1]

        yield one_more
        for store in opened:
            store.close()
