"""Refuses what is not to be read: bodies that are too large, whatever their header says, or come too slowly; and what
is asked of another host than this."""

from __future__ import annotations

import asyncio

from starlette.datastructures import URL, Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coflows.model.hosts import is_loopback
from coflows.registry.measuring import elements
from coflows.registry.patience import BODY_SECONDS

MAX_ELEMENTS = 500_000
"""Of a body's JSON: more than a page that is as large as may be has."""


class BodyLimit:
    """Around an application: answers 413 to bodies over ``most`` bytes or MAX_ELEMENTS elements, 408 to those that take
    longer than BODY_SECONDS."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        told = Headers(scope=scope).get("content-length", "0")
        if not (told.isascii() and told.isdigit()) or int(told) > self._most:
            await self._refuse(scope, receive, send)
            return
        size = found = 0
        loop = asyncio.get_running_loop()
        late: float | None = loop.time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal size, found, late
            try:
                async with asyncio.timeout_at(late):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "The request does not come in time.", {"connection": "close"}) from None
            if not message.get("more_body", False):
                late = None  # What comes after the body is only that the other side left.
            size += len(message.get("body", b""))
            if size > self._most:
                raise HTTPException(413, f"At most {self._most} bytes are taken.", {"connection": "close"})
            found += elements(message.get("body", b""))
            if found > MAX_ELEMENTS:
                raise HTTPException(413, f"At most {MAX_ELEMENTS} elements are taken.", {"connection": "close"})
            return message

        await self._app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = {"code": "message_too_large", "message": f"At most {self._most} bytes are taken.", "hint": ""}
        await JSONResponse({"error": error}, 413, {"connection": "close"})(scope, receive, send)


class LocalHosts:
    """Around the application of a service that is for this machine alone: answers 421 to who asks for another host, as
    pages of a name that leads here do from the browser of whoever is at this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_loopback(URL(scope=scope).hostname or ""):
            message = "This service is asked as localhost alone."
            hint = "Give it the URL that others know it by (url=...), or listen=HOST:PORT behind a proxy."
            error = {"code": "wrong_host", "message": message, "hint": hint}
            await JSONResponse({"error": error}, 421)(scope, receive, send)
            return
        await self._app(scope, receive, send)
