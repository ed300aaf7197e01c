"""Requests to other services: to addresses that may be dialled, never further, never for long, never without end."""

from __future__ import annotations

import ipaddress
import json
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpcore
import httpx

from coflows.errors import AddressRefusedError, RegistryError, RegistryRefusedError, RegistryUnavailableError
from coflows.model.hosts import is_loopback
from coflows.registry.measuring import elements
from coflows.registry.resolving import Resolver
from coflows.registry.timed import Deadline, TimedNetwork
from coflows.registry.urls import REACHES, check_url, is_address, may_dial
from coflows.shown import in_one_line

MAX_ANSWER = 64 * 2**20
MAX_ELEMENTS = 2_000_000
"""Of an answer's JSON: each is up to 70 bytes of memory."""
CONNECT_SECONDS = 5.0
RESOLVE_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 2.0
"""Connections are few at who is asked; those that rest are closed."""
MAX_CONNECTIONS = 200
_FAILURES = (
    *(httpcore.NetworkError, httpcore.TimeoutException, httpcore.ProtocolError, httpcore.UnsupportedProtocol),
    *(OSError, RuntimeError, UnicodeEncodeError),
)
"""RuntimeError: it was closed meanwhile."""
_CLOSED_MEANWHILE = (httpcore.RemoteProtocolError, httpcore.ReadError, httpcore.WriteError)
"""The other side may close a connection that rests just when it is used again. Every request may be made twice, if it
is signed twice: what was signed once is refused the second time."""


class Dialer:
    """Thread-safe. ``reach``: what may be dialled besides the public network; the address is looked up and checked at
    each request, and what was checked is what is connected to. Nothing is redirected, unpacked or taken that is longer
    than ``most`` bytes; no proxy is used. A ``plain`` one dials no https, and reads no certificates for it, which takes
    longer than some requests."""

    def __init__(
        self, timeout: float, reach: Collection[str] = REACHES, plain: bool = False, most: int = MAX_ANSWER
    ) -> None:
        self.reach = frozenset(reach)
        self._timeout = timeout
        self._most = most
        self._deadline = Deadline()
        self._resolver = Resolver()
        self._closed = False
        self._http = httpcore.ConnectionPool(
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else httpx.create_ssl_context(trust_env=False),
            max_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
            network_backend=TimedNetwork(self._deadline),
        )

    def request(
        self,
        method: str,
        url: str,
        path: str,
        body: bytes | None = None,
        sign: Callable[[], Mapping[str, str]] | None = None,
    ) -> Any:
        """The JSON that is answered, None for no content; ``sign`` gives the headers that sign it, each time that it is
        made. Raises AddressRefusedError, RegistryUnavailableError, or RegistryRefusedError with what the service says.
        """
        place = check_url(url)
        self._deadline.at = time.monotonic() + self._timeout
        address = self._address(place.host, place.port)
        parts = urlsplit(place.url)
        sent = {
            "host": parts.netloc,
            "accept": "application/json",
            "accept-encoding": "identity",
            **({} if body is None else {"content-type": "application/json"}),
            **({} if method == "GET" else {"content-length": str(len(body or b""))}),
        }

        def exchange() -> tuple[int, bytes]:
            return self._exchange(method, target, place.host, {**sent, **(sign() if sign else {})}, body)

        try:
            if self._closed:
                raise RuntimeError("the connection was closed")
            target = httpcore.URL(scheme=place.scheme, host=address, port=place.port, target=f"{parts.path}{path}")
            try:
                status, content = exchange()
            except _CLOSED_MEANWHILE:
                status, content = exchange()
        except _FAILURES as error:
            raise RegistryUnavailableError(
                f"{place.url} does not answer: {in_one_line(str(error)) or type(error).__name__}.",
                hint="Is the service running there? `coflows registry run` starts one.",
            ) from error
        return self._answer(status, content, f"{method} {place.url}{path.partition('?')[0]}")

    def _address(self, host: str, port: int) -> str:
        """An address of the host that may be dialled."""
        if is_loopback(host):
            # Before it is looked up, so that it is the same address that a service of this machine listens at.
            found = ["127.0.0.1" if host == "localhost" else host]
        elif is_address(host):
            found = [host]
        else:
            try:
                found = self._resolver.addresses(host, port, self._deadline.left(RESOLVE_SECONDS))
            except (OSError, UnicodeError, httpcore.ReadTimeout) as error:
                raise RegistryUnavailableError(f"{host} has no address: {error}.") from error
        allowed = [one for one in found if may_dial(ipaddress.ip_address(one.partition("%")[0]), self.reach)]
        if not allowed:
            raise AddressRefusedError(
                f"{host} leads to {', '.join(found)[:200]}, where this service does not go.",
                hint="Its owner may allow it: reach: [loopback, private] in the loader.",
            )
        return allowed[0]

    def _exchange(
        self, method: str, target: httpcore.URL, host: str, headers: dict[str, str], body: bytes | None
    ) -> tuple[int, bytes]:
        """One request: the status and the content of its answer."""
        with self._http.stream(
            method,
            target,
            headers=list(headers.items()),
            content=body,
            extensions={
                "sni_hostname": host,
                "timeout": {"connect": min(self._timeout, CONNECT_SECONDS), "pool": self._timeout},
            },
        ) as response:
            parts, size, found = [], 0, 0
            for part in response.iter_stream():
                parts.append(part)
                size += len(part)
                found += elements(part)
                if size > self._most or found > MAX_ELEMENTS:
                    raise RegistryUnavailableError(f"{headers['host']} answers without end.")
            return response.status, b"".join(parts)

    def _answer(self, status: int, content: bytes, what: str) -> Any:
        if 300 <= status < 400:
            raise AddressRefusedError(
                f"{what} is redirected, which is not followed.", hint="Use the service's own URL."
            )
        try:
            value = json.loads(content) if content else None
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{what} is not answered with JSON.", hint="Is it a registry's URL?") from error
        if 200 <= status < 300:
            return value
        told = value.get("error") if isinstance(value, dict) else None
        told = told if isinstance(told, dict) else {}
        raise RegistryRefusedError(
            f"{what} is refused ({status}): {in_one_line(str(told.get('message', 'no reason given')))}",
            status=status,
            reason=in_one_line(str(told.get("code", "")), 80),
            hint=in_one_line(str(told.get("hint", ""))),
        )

    def close(self) -> None:
        """Close all connections."""
        self._closed = True
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
