"""Requests to other services: to addresses that may be dialled, never further, never for long, never without end."""

from __future__ import annotations

import ipaddress
import json
import socket
import ssl
import time
from collections.abc import Collection
from types import TracebackType
from typing import Any, Self

import httpx

from coflows.errors import AddressRefusedError, RegistryError, RegistryRefusedError, RegistryUnavailableError
from coflows.registry.urls import REACHES, check_url, is_loopback, may_dial

MAX_ANSWER = 64 * 2**20
CONNECT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 2.0
"""Connections are few at who is asked; those that rest are closed."""
MAX_CONNECTIONS = 200


class Dialer:
    """Thread-safe. ``reach``: what may be dialled besides the public network; the address is looked up and checked at
    each request, and what was checked is what is connected to. Nothing is redirected, no proxy is used. A ``plain`` one
    dials no https, and reads no certificates for it, which takes longer than some requests."""

    def __init__(self, timeout: float, reach: Collection[str] = REACHES, plain: bool = False) -> None:
        self.reach = frozenset(reach)
        self._timeout = timeout
        limits = httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS))
        idle = httpx.Limits(max_connections=MAX_CONNECTIONS, keepalive_expiry=KEEP_ALIVE_SECONDS)
        verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else True
        self._http = httpx.Client(verify=verify, timeout=limits, limits=idle, trust_env=False, follow_redirects=False)

    def request(
        self, method: str, url: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Any:
        """The JSON that is answered, None for no content. Raises AddressRefusedError, RegistryUnavailableError, or
        RegistryRefusedError with what the service says."""
        place = check_url(url)
        address = self._address(place.host, place.port)
        target = httpx.URL(f"{place.url}{path}")
        sent = {"accept": "application/json", **(headers or {}), "host": target.netloc.decode()}
        if body is not None:
            sent["content-type"] = "application/json"
        request = self._http.build_request(
            method,
            target.copy_with(host=address),
            content=body,
            headers=sent,
            extensions={"sni_hostname": place.host},
        )
        deadline = time.monotonic() + self._timeout
        try:
            response = self._http.send(request, stream=True)
            try:
                content = self._content(response, place.url, deadline)
            finally:
                response.close()
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:  # The last: it was closed meanwhile.
            raise RegistryUnavailableError(
                f"{place.url} does not answer: {str(error) or type(error).__name__}.",
                hint="Is the service running there? `coflows registry run` starts one.",
            ) from error
        return self._answer(response, content, f"{method} {place.url}{path.partition('?')[0]}")

    def _address(self, host: str, port: int) -> str:
        """An address of the host that may be dialled."""
        if is_loopback(host):
            # Before it is looked up, so that it is the same address that a service of this machine listens at.
            found = ["127.0.0.1" if host == "localhost" else host]
        else:
            try:
                found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
            except (OSError, UnicodeError) as error:
                raise RegistryUnavailableError(f"{host} has no address: {error}.") from error
        allowed = [one for one in found if may_dial(ipaddress.ip_address(one.partition("%")[0]), self.reach)]
        if not allowed:
            raise AddressRefusedError(
                f"{host} leads to {', '.join(found)[:200]}, where this service does not go.",
                hint="Its owner may allow it: reach: [loopback, private] in the loader.",
            )
        return allowed[0]

    def _content(self, response: httpx.Response, url: str, deadline: float) -> bytes:
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MAX_ANSWER or time.monotonic() > deadline:
                raise RegistryUnavailableError(f"{url} answers without end.")
        return b"".join(parts)

    def _answer(self, response: httpx.Response, content: bytes, what: str) -> Any:
        if response.is_redirect:
            raise AddressRefusedError(
                f"{what} is redirected, which is not followed.", hint="Use the service's own URL."
            )
        try:
            value = json.loads(content) if content else None
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{what} is not answered with JSON.", hint="Is it a registry's URL?") from error
        if response.is_success:
            return value
        told = value.get("error") if isinstance(value, dict) else None
        told = told if isinstance(told, dict) else {}
        raise RegistryRefusedError(
            f"{what} is refused ({response.status_code}): {str(told.get('message', 'no reason given'))[:500]}",
            status=response.status_code,
            reason=str(told.get("code", ""))[:80],
            hint=str(told.get("hint", ""))[:500],
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
