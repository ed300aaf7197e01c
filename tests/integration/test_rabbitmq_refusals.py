"""What RabbitMQ refuses becomes an error that says what, where and what to do, and hurts nothing else."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from urllib.parse import urlsplit

import pytest

from coflows.broker import Delivery, QueueSpec
from coflows.broker.rabbitmq import RabbitMQBroker
from coflows.errors import (
    BrokerAuthError,
    BrokerError,
    BrokerUnavailableError,
    ConfigurationError,
    QueueMismatchError,
)
from tests.services.rabbitmq import RabbitMQ

pytestmark = pytest.mark.rabbitmq
PATIENCE = 30.0
FOR_EVER = 1000.0
"""A connect_timeout that the test's own time limit would catch."""


@pytest.fixture
def name() -> str:
    return f"test.{secrets.token_hex(8)}"


@pytest.fixture
def broker(amqp_url: str) -> Iterator[RabbitMQBroker]:
    with RabbitMQBroker(amqp_url) as broker:
        yield broker


@pytest.fixture
def limited(rabbitmq_node: RabbitMQ) -> Iterator[Callable[[str], str]]:
    """Make a user who may write where the pattern says, and configure and read only ``mine.*``; gives his URL."""
    users: list[str] = []

    def make(write: str) -> str:
        users.append(f"user-{secrets.token_hex(4)}")
        rabbitmq_node.control("add_user", users[-1], "sesame")
        rabbitmq_node.control("set_permissions", users[-1], r"^mine\..*", write, r"^mine\..*")
        return rabbitmq_node.url.replace("guest:guest", f"{users[-1]}:sesame")

    yield make
    for user in users:
        rabbitmq_node.control("delete_user", user)


def test_a_wrong_password_names_the_user_at_once(amqp_url: str) -> None:
    user, port = urlsplit(amqp_url).username, urlsplit(amqp_url).port
    with pytest.raises(BrokerAuthError, match=f"refuses user '{user}'") as caught:
        RabbitMQBroker(f"amqp://{user}:wrong-password@127.0.0.1:{port}/", connect_timeout=FOR_EVER)
    assert f"amqp://{user}@127.0.0.1:{port}/" in str(caught.value)
    assert "wrong-password" not in str(caught.value) and "password" in caught.value.hint


def test_a_vhost_that_is_not_there_is_named_at_once(amqp_url: str) -> None:
    with pytest.raises(BrokerAuthError, match="no vhost 'nowhere'") as caught:
        RabbitMQBroker(f"{amqp_url.rstrip('/')}/nowhere", connect_timeout=FOR_EVER)
    assert "add_vhost" in caught.value.hint


def test_nothing_there_names_the_url_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BrokerUnavailableError) as caught:
        RabbitMQBroker(f"amqp://guest:sesame@127.0.0.1:{port}/there", connect_timeout=0.3)
    assert caught.value.message == f"Nothing answers at amqp://guest@127.0.0.1:{port}/there (Connection refused)."
    assert "embedded://" in caught.value.hint
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
def test_a_server_that_never_speaks_is_given_up(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(BrokerUnavailableError, match=f"{scheme}://guest@127.0.0.1:{port}/"):
            RabbitMQBroker(f"{scheme}://guest:guest@127.0.0.1:{port}/", connect_timeout=0.3)


def test_a_url_that_cannot_be_read_keeps_its_password() -> None:
    with pytest.raises(ConfigurationError, match="cannot be read") as caught:
        RabbitMQBroker("amqp://guest:ses#ame@127.0.0.1:port/")
    assert caught.value.__cause__ is None and "ame" not in caught.value.message


def test_a_queue_with_other_properties_is_named_with_the_mend(broker: RabbitMQBroker, name: str) -> None:
    broker.declare(QueueSpec(name))
    with pytest.raises(QueueMismatchError, match="inequivalent arg 'x-single-active-consumer'") as caught:
        broker.declare(QueueSpec(name, single_active=True))
    assert name in caught.value.message and f"rabbitmqctl delete_queue {name}" in caught.value.hint
    broker.publish(name, b"still works")


def test_an_account_without_permission_is_named_with_the_queue(
    limited: Callable[[str], str], rabbitmq_node: RabbitMQ, name: str
) -> None:
    url = limited(r"^(mine\..*|amq\.default)$")
    with RabbitMQBroker(rabbitmq_node.url) as owner, RabbitMQBroker(url) as broker:
        owner.declare(QueueSpec(name))
        refused = rf"let user '{urlsplit(url).username}' use queue {name}"
        with pytest.raises(BrokerAuthError, match=refused) as caught:
            broker.declare(QueueSpec(name))
        assert "set_permissions" in caught.value.hint
        with pytest.raises(BrokerAuthError, match=refused):
            broker.consume(name, lambda delivery: delivery.ack())
        broker.declare(QueueSpec(f"mine.{name}"))
        broker.publish(f"mine.{name}", b"x")
        assert broker.get(f"mine.{name}") is not None


def test_an_account_that_may_not_publish_is_told_for_each_message(limited: Callable[[str], str], name: str) -> None:
    with RabbitMQBroker(limited(r"^mine\..*")) as broker:
        broker.declare(QueueSpec(f"mine.{name}"))
        for future in [broker.publish_async(f"mine.{name}", b"x") for _ in range(20)]:
            with pytest.raises(BrokerAuthError, match=f"mine.{name}"):
                future.result(PATIENCE)


@pytest.fixture
def small_messages_only(rabbitmq_node: RabbitMQ) -> Iterator[str]:
    setting = "application:{}env(rabbit, max_message_size{})."
    rabbitmq_node.control("eval", setting.format("set_", ", 1000"))
    yield rabbitmq_node.url
    rabbitmq_node.control("eval", setting.format("unset_", ""))


def test_a_message_that_the_server_finds_too_big_hurts_no_other(small_messages_only: str, name: str) -> None:
    with RabbitMQBroker(small_messages_only) as broker:
        broker.declare(QueueSpec(name))
        bodies = [b"%d" % number for number in range(30)]
        bodies[10], bodies[20] = b"x" * 2000, b"y" * 2000
        futures = [broker.publish_async(name, body) for body in bodies]
        for number, future in enumerate(futures):
            if number in (10, 20):
                with pytest.raises(BrokerError, match="larger than"):
                    future.result(PATIENCE)
            else:
                future.result(PATIENCE)
        kept = [delivery.body for delivery in iter(lambda: broker.get(name), None)]
        assert list(dict.fromkeys(kept)) == [body for body in bodies if len(body) < 1000]


def test_a_name_that_amqp_cannot_carry_is_told(broker: RabbitMQBroker, name: str) -> None:
    with pytest.raises(BrokerError):
        broker.declare(QueueSpec("x" * 300))
    with pytest.raises(BrokerError):
        broker.publish("x" * 300, b"x")
    broker.declare(QueueSpec(name))
    broker.publish(name, b"x")


def test_waiting_in_a_callback_is_refused_rather_than_for_ever(broker: RabbitMQBroker, name: str) -> None:
    broker.declare(QueueSpec(name))
    outcome: Future[bool] = Future()

    def callback(delivery: Delivery) -> None:
        delivery.ack()
        try:
            outcome.set_result(broker.exists(name))
        except BrokerError as error:
            outcome.set_exception(error)

    broker.consume(name, callback)
    broker.publish(name, b"x")
    with pytest.raises(BrokerError, match="callback"):
        outcome.result(PATIENCE)
