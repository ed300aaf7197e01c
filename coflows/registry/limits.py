"""Refuses bodies that are too large, or come too slowly, before anything reads them, whatever their header says."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coflows.registry.patience import BODY_SECONDS


class BodyLimit:
    """Around an application: answers 413 to bodies over ``most`` bytes, 408 to those that take longer than
    BODY_SECONDS."""

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
        size = 0
        loop = asyncio.get_running_loop()
        late: float | None = loop.time() + BODY_SECONDS

        async def counted() -> Message:
            nonlocal size, late
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
            return message

        await self._app(scope, counted, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = {"code": "message_too_large", "message": f"At most {self._most} bytes are taken.", "hint": ""}
        await JSONResponse({"error": error}, 413, {"connection": "close"})(scope, receive, send)
