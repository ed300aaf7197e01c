"""AMQPS with client certificates against a real RabbitMQ: who cannot show one is not let in, nor is a false server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import pytest

from coflows import Client
from coflows.broker.rabbitmq import RabbitMQBroker
from coflows.errors import BrokerAuthError, ConfigurationError
from coflows.serving import get_flow_instance, serve_flow
from tests.services.certificates import Authority
from tests.services.rabbitmq import RabbitMQ
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

pytestmark = pytest.mark.rabbitmq
FOR_EVER = 1000.0
"""A connect_timeout that the test's own time limit would catch."""


class Place(NamedTuple):
    """A listener that wants certificates of ``authority``."""

    port: int
    authority: Authority
    stranger: Authority

    def url(self, trusted: Authority, certificate: tuple[Path, Path] | None, host: str = "localhost") -> str:
        files = {"cacertfile": trusted.file}
        if certificate is not None:
            files |= {"certfile": certificate[0], "keyfile": certificate[1]}
        query = "&".join(f"{name}={quote(str(file))}" for name, file in files.items())
        return f"amqps://guest:guest@{host}:{self.port}/?{query}"


@pytest.fixture(scope="module")
def place(rabbitmq_node: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("tls")
    authority, stranger = Authority(folder / "own"), Authority(folder / "strange")
    certificate, key = authority.issue("server")
    options = (
        f'[{{cacertfile, "{authority.file}"}}, {{certfile, "{certificate}"}}, {{keyfile, "{key}"}}, '
        "{verify, verify_peer}, {fail_if_no_peer_cert, true}]"
    )
    return Place(rabbitmq_node.listen_tls(options), authority, stranger)


def test_who_shows_a_certificate_works_over_amqps(place: Place, users: Callable[..., list[Client]]) -> None:
    url = place.url(place.authority, place.authority.issue("client"))
    owner, caller = users(2, broker_url=url)
    assert owner.broker.url == f"amqps://guest@localhost:{place.port}/"
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    assert get_flow_instance(caller, "counter", user_id=owner.user_id).ask({}, timeout=30) == {"count": 1}


@pytest.mark.parametrize("issued_by", ["nobody", "a stranger"])
def test_who_shows_no_certificate_of_the_authority_is_not_let_in(place: Place, issued_by: str) -> None:
    certificate = None if issued_by == "nobody" else place.stranger.issue("client")
    with pytest.raises(BrokerAuthError, match="wants a certificate"):
        RabbitMQBroker(place.url(place.authority, certificate), connect_timeout=FOR_EVER)


@pytest.mark.parametrize("what", ["its authority", "its name"])
def test_a_server_that_is_not_who_it_should_be_gets_no_password(place: Place, what: str) -> None:
    trusted, host = (place.stranger, "localhost") if what == "its authority" else (place.authority, "127.0.0.1")
    with pytest.raises(BrokerAuthError, match="told no password"):
        RabbitMQBroker(place.url(trusted, place.authority.issue("client"), host), connect_timeout=FOR_EVER)


def test_files_that_cannot_be_used_are_named_in_words(place: Place, tmp_path: Path) -> None:
    for url in (
        f"amqps://guest:sesame@localhost/?cacertfile={tmp_path}/none",
        f"amqps://guest:sesame@localhost/?certfile={place.authority.file}",
        f"amqp://guest:sesame@localhost/?cacertfile={place.authority.file}",
    ):
        with pytest.raises(ConfigurationError, match="TLS") as caught:
            RabbitMQBroker(url)
        assert "sesame" not in str(caught.value)
