"""The page that people see at a service's URL, and at the URL of a flow; programs get JSON there."""

from __future__ import annotations

import re
from importlib.resources import files

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE, JSON = "text/html", "application/json"
ROOTS = ((re.compile(r"/"), ""), (re.compile(r"/flows/[0-9a-f]{32}"), "../"))
"""Where there is a page, and how it leads from there to the service's root: also behind a proxy's path."""

ASSETS = {"style.css": "text/css", "script.js": "text/javascript", "map.js": "text/javascript"}
GUARD = {
    # What others wrote is shown as text; should it ever be taken for more, this leaves it nothing to do.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


def wants_page(accept: str) -> bool:
    """Whether an Accept header asks for a page rather than for JSON: by its name, and no less than for JSON."""
    weights = dict(_weight(part) for part in accept.lower().split(","))
    return 0 < weights.get(PAGE, 0.0) >= weights.get(JSON, 0.0)


def _weight(part: str) -> tuple[str, float]:
    kind, *parameters = (one.strip() for one in part.split(";"))
    weight = next((one[2:] for one in parameters if one.startswith("q=")), "1")
    return kind, float(weight) if re.fullmatch(r"[01](\.\d{0,3})?", weight) else 0.0


class Site:
    """Answers browsers before the application does."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        folder = files(__package__) / "site_files"
        self._page = (folder / "index.html").read_text(encoding="utf-8")
        self._assets = {f"/site/{name}": ((folder / name).read_bytes(), kind) for name, kind in ASSETS.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a page or a file of it; else let the application answer."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if path in self._assets:
            content, kind = self._assets[path]
            await Response(content, media_type=kind, headers=GUARD)(scope, receive, send)
            return
        root = next((root for pattern, root in ROOTS if pattern.fullmatch(path)), None)
        if root is None:
            await self._app(scope, receive, send)
        elif wants_page(Headers(scope=scope).get("accept", "")):
            page = self._page.replace("{root}", root)
            await Response(page, media_type=PAGE, headers={**GUARD, "Vary": "Accept"})(scope, receive, send)
        else:
            await self._app(scope, receive, _varying(send))


def _varying(send: Send) -> Send:
    """Adds that the answer depends on what was asked for, so that no cache gives JSON to a browser."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).add_vary_header("Accept")
        await send(message)

    return sending
