"""The embedded broker passes the contract."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coflows.broker import Broker, open_broker
from tests.conformance.broker_contract import BrokerContract


class TestEmbedded(BrokerContract):
    @pytest.fixture
    def open_broker(self, tmp_path: Path) -> Iterator[Callable[[], Broker]]:
        opened: list[Broker] = []

        def one_more() -> Broker:
            opened.append(open_broker("embedded://", default_directory=tmp_path / "broker"))
            return opened[-1]

        yield one_more
        for broker in opened:
            broker.close()
