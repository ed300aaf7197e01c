"""RabbitMQ's management API over HTTP: requests, and what refusals mean in our words."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from coflows.errors import BrokerAuthError, BrokerError, BrokerUnavailableError, ConfigurationError
from coflows.model.hosts import is_loopback

TIMEOUT = 15.0
"""Seconds for a request."""
TRIES = 5
STUMBLED = httpx.codes.INTERNAL_SERVER_ERROR


class RabbitAdmin:
    """``url`` is ``https://administrator:password@host:15671``. For one thread. Raises, everywhere: BrokerAuthError
    when the account is refused or is no administrator, BrokerUnavailableError, BrokerError for what else is refused."""

    def __init__(self, url: str, *, allow_plaintext: bool = False) -> None:
        try:
            parts = urlsplit(url)
            port, host = parts.port, parts.hostname or ""
        except ValueError:
            host = ""
        if not host or parts.scheme not in ("http", "https"):
            raise ConfigurationError(  # The URL has a password, so it is not shown.
                "The URL of RabbitMQ's management cannot be read.",
                hint="Write https://administrator:password@host:15671, with %-escapes for special characters.",
            )
        if parts.scheme == "http" and not is_loopback(host) and not allow_plaintext:
            raise ConfigurationError(
                f"An administrator's password would go to {host} in the clear.",
                hint="Use https://; or run this on the broker's machine; or, where nobody is on the wire, set "
                "COFLOWS_ALLOW_PLAINTEXT=1.",
            )
        shown = f"[{host}]" if ":" in host else host
        self.scheme, self.host = parts.scheme, host
        self.url = f"{parts.scheme}://{shown}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
        """Without the password."""
        self.user = unquote(parts.username or "")
        self._http = httpx.Client(
            base_url=f"{self.url}/api/",
            auth=(self.user, unquote(parts.password or "")),
            timeout=TIMEOUT,
            verify=ssl.create_default_context(),
            trust_env=False,
        )

    def get(self, *place: str) -> Any:
        """What is there; None where nothing is."""
        answer = self._ask("GET", place, None)
        return None if answer.status_code == httpx.codes.NOT_FOUND else _read(answer)

    def put(self, *place: str, value: dict[str, Any]) -> None:
        """Make it so."""
        self._ask("PUT", place, value)

    def delete(self, *place: str) -> None:
        """Delete it; nothing happens where nothing is."""
        for _ in range(TRIES):
            # The server stumbles over what goes by itself at the same moment, as a deleted user's connections do.
            if self._ask("DELETE", place, None, bears=STUMBLED).status_code != STUMBLED:
                return
        self._ask("DELETE", place, None)

    def close(self) -> None:
        """Let go of the server."""
        self._http.close()

    def _ask(
        self, method: str, place: tuple[str, ...], value: dict[str, Any] | None, bears: int | None = None
    ) -> httpx.Response:
        path = "/".join(quote(part, safe="") for part in place)
        try:
            answer = self._http.request(method, path, json=value)
        except httpx.HTTPError as error:
            raise BrokerUnavailableError(
                f"RabbitMQ's management does not answer at {self.url} ({error}).",
                hint="`rabbitmq-plugins enable rabbitmq_management` where the broker is has it listen at port 15672.",
            ) from error
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise BrokerAuthError(
                f"RabbitMQ's management at {self.url} does not let user {self.user!r} do this.",
                hint=f"`rabbitmqctl set_user_tags {self.user} administrator` makes an administrator.",
            )
        absent = answer.status_code == httpx.codes.NOT_FOUND and method != "PUT"
        if not (answer.is_success or absent or answer.status_code == bears):
            raise BrokerError(f"RabbitMQ's management at {self.url} refused {path}: {answer.text[:300]}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as error:
        raise BrokerError(f"{answer.url.host} does not answer as RabbitMQ's management does.") from error
