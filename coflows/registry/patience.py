"""How long is waited for who does not say what he wants, or does so slowly, and how many places one client may hold:
others want them."""

from __future__ import annotations

import asyncio
import ipaddress
from collections import Counter

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from coflows.registry.rates import client_of

HEAD_SECONDS = 10.0
"""For all that comes before a request's body."""

BODY_SECONDS = 60.0


def patience_with(clients: Counter[str], most: int, behind_proxy: bool) -> type[Patience]:
    """The protocol of one server: who has ``most`` connections gets no more. ``clients`` has how many each has; a proxy
    may have all."""

    class Counting(Patience):
        def connection_made(self, transport: asyncio.Transport) -> None:
            peer = transport.get_extra_info("peername")
            self._client = client_of(peer[0], None, False) if peer else None
            super().connection_made(transport)
            if self._client is None or (behind_proxy and not ipaddress.ip_network(self._client).is_global):
                self._client = None
                return
            clients[self._client] += 1
            if clients[self._client] > most:
                transport.close()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            if self._client is not None:
                clients[self._client] -= 1
                if not clients[self._client]:
                    del clients[self._client]

    return Counting


class Patience(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """The web server's protocol for a connection; closes one whose request does not come in time."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begin to wait for the first request."""
        self._late: asyncio.TimerHandle | None = None
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Wait no more once it is known what is wanted, and for the next request."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody is waited for any more."""
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        if not self._waits():
            self._stop()
        elif self._late is None:
            self._late = self.loop.call_later(HEAD_SECONDS, self._expire)

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _expire(self) -> None:
        self._late = None
        if self._waits():
            self.transport.close()

    def _waits(self) -> bool:
        return self.cycle is None or bool(self.cycle.response_complete)
