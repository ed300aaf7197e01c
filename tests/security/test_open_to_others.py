"""What listens, and what sends passwords: on this machine alone unless there is TLS or somebody said otherwise."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from coflows.broker import open_broker, rabbitmq
from coflows.broker.rabbitmq_admin import RabbitAdmin
from coflows.errors import ConfigurationError
from coflows.registry import RunningService
from coflows.registry.listening import where_to_listen
from coflows.registry.options import DEFAULTS, Options
from tests.services.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


def test_a_service_listens_to_this_machine_by_default() -> None:
    assert where_to_listen(DEFAULTS) == ("127.0.0.1", 3366, None)


@pytest.mark.parametrize(
    "said",
    [
        {"url": "http://192.0.2.1:3366"},
        {"url": "http://registry.example"},
        {"url": "http://localhost.example"},
        {"url": "http://localhost:3366", "listen": "0.0.0.0:3366"},
        {"url": "http://localhost:3366", "listen": "[::]:3366"},
        {"url": "http://localhost:3366", "listen": ":3366"},
        {"url": "https://registry.example", "listen": "192.0.2.1:443"},
        {"url": "https://localhost:3366"},
    ],
    ids=str,
)
def test_a_service_is_not_opened_to_other_machines_without_tls(said: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="without"):
        where_to_listen(Options(**said))
    if not said["url"].startswith("https://localhost"):
        assert where_to_listen(Options(**said, allow_plaintext=True)).tls is None


def test_behind_a_proxy_of_this_machine_a_service_needs_no_certificate() -> None:
    assert where_to_listen(Options(url="https://registry.example", listen="127.0.0.1:80")).host == "127.0.0.1"


def test_a_service_with_a_certificate_speaks_tls_and_nothing_else(
    serve: Callable[..., RunningService], authority: Authority, home: Path
) -> None:
    certificate, key = authority.issue("service")
    service = serve(url="https://localhost:0", tls_certificate=certificate, tls_key=key)
    trusting = ssl.create_default_context(cafile=authority.file)
    assert httpx.get(service.url, verify=trusting, timeout=30).json()["url"] == service.url
    with pytest.raises(httpx.ConnectError, match="certificate"):
        httpx.get(service.url, timeout=30)
    with pytest.raises(httpx.HTTPError):
        httpx.get(service.url.replace("https", "http"), timeout=30)


def test_a_certificate_that_cannot_be_used_is_told(authority: Authority) -> None:
    other = authority.issue("other")[1]
    for files in ({"tls_certificate": authority.file, "tls_key": other}, {"tls_certificate": "/none"}):
        with pytest.raises(ConfigurationError, match="cannot be used"):
            where_to_listen(Options(url="https://localhost:1", **files))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="no https URL"):
        where_to_listen(Options(url="http://localhost:1", tls_certificate=other.with_suffix(".pem"), tls_key=other))


def test_an_administrators_password_does_not_go_over_the_wire_in_the_clear() -> None:
    with pytest.raises(ConfigurationError, match="in the clear") as caught:
        RabbitAdmin("http://admin:sesame@192.0.2.1:15672")
    assert "sesame" not in str(caught.value)
    for url, allowed in (
        ("https://a:b@192.0.2.1", False),
        ("http://a:b@[::1]:1", False),
        ("http://a:b@192.0.2.1", True),
    ):
        RabbitAdmin(url, allow_plaintext=allowed).close()


@pytest.mark.parametrize(
    ("url", "allowed", "warned"),
    [
        ("amqp://u:sesame@192.0.2.1/", False, True),
        ("amqp://u:sesame@broker.example/", False, True),
        ("amqp://u:sesame@broker.example/", True, False),
        ("amqps://u:sesame@broker.example/", False, False),
        ("amqp://u:sesame@127.0.0.1/", False, False),
        ("amqp://u:sesame@[::1]/", False, False),
        ("amqp://", False, False),
    ],
)
def test_a_broker_elsewhere_without_tls_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str, allowed: bool, warned: bool
) -> None:
    class Reached:
        def __init__(self, url: str, **_said: Any) -> None:
            self.url = url.replace("u:sesame@", "")

    monkeypatch.setattr(rabbitmq, "RabbitMQBroker", Reached)
    open_broker(url, allow_plaintext=allowed)
    assert ("in the clear" in caplog.text) is warned and "sesame" not in caplog.text
