"""RabbitMQ through pika passes the contract."""

from collections.abc import Callable, Iterator

import pytest

from coflows.broker import Broker, open_broker
from tests.conformance.broker_contract import BrokerContract


@pytest.mark.rabbitmq
class TestRabbitMQ(BrokerContract):
    @pytest.fixture
    def open_broker(self, amqp_url: str) -> Iterator[Callable[[], Broker]]:
        opened: list[Broker] = []

        def one_more() -> Broker:
            opened.append(open_broker(amqp_url))
            return opened[-1]

        yield one_more
        for broker in opened:
            broker.close()
