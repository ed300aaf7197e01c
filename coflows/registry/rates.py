"""How much one client may ask of a service, so that the others find time and places there too."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import Counter, OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

BURST_SECONDS = 10
"""Who was silent for so long may ask at once what he may ask in that time."""

MAX_CLIENTS = 10_000
"""Whose requests are counted at the same time; who asked least lately is forgotten, and begins anew."""


class Allowance:
    """Pure: of each client, how many requests he has left; ``rate`` come back a second, up to BURST_SECONDS of them."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._most = rate * BURST_SECONDS
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now: float) -> float:
        """One request: 0, or in how many seconds there is one again."""
        left, since = self._left.pop(client, (self._most, now))
        left = min(self._most, left + max(now - since, 0.0) * self._rate)
        wait = 0.0 if left >= 1 else (1 - left) / self._rate
        self._left[client] = (left if wait else left - 1, now)
        if len(self._left) > MAX_CLIENTS:
            self._left.popitem(last=False)
        return wait


def client_of(address: str, forwarded: str | None, behind_proxy: bool) -> str | None:
    """Who asks, by his network: an address of IPv4, or 64 bits of IPv6, of which one machine may have all. Behind a
    proxy he is whom that one says it has it from. None for who is on this machine himself: he counts as the owner."""
    asker = _address(address)
    if asker is None:
        return None
    if behind_proxy and forwarded and not asker.is_global:
        asker = _address(forwarded.rpartition(",")[2].strip()) or asker
    if asker.is_loopback:
        return None
    if isinstance(asker, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((asker, 64), strict=False))
    return str(asker)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


class RateLimit:
    """Around an application: answers 429 to a client who asks more than ``rate`` times a second for long, or more than
    ``at_once`` at the same time. For one event loop."""

    def __init__(
        self,
        app: ASGIApp,
        rate: float,
        at_once: int,
        behind_proxy: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._allowance = Allowance(rate)
        self._at_once = at_once
        self._behind_proxy = behind_proxy
        self._clock = clock
        self._asking: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the application answer, or refuse."""
        client = self._client(scope) if scope["type"] == "http" else None
        if client is None:
            await self._app(scope, receive, send)
            return
        wait = self._allowance.take(client, self._clock())
        if wait or self._asking[client] >= self._at_once:
            what = "as often" if wait else "as much at the same time"
            error = {"code": "too_many_requests", "message": f"No client may ask {what}.", "hint": "Ask again later."}
            headers = {"retry-after": str(max(1, math.ceil(wait))), "connection": "close"}
            await JSONResponse({"error": error}, 429, headers)(scope, receive, send)
            return
        self._asking[client] += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._asking[client] -= 1
            if not self._asking[client]:
                del self._asking[client]

    def _client(self, scope: Scope) -> str | None:
        address = (scope.get("client") or ("",))[0]
        return client_of(address, Headers(scope=scope).get("x-forwarded-for"), self._behind_proxy)
