"""How long is waited for who does not say what he wants, or does so slowly: he holds a place that others want."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.auto import AutoHTTPProtocol

HEAD_SECONDS = 10.0
"""For all that comes before a request's body."""

BODY_SECONDS = 60.0


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
