"""The service over HTTP: reads a request, asks the service, answers."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi import Path as PathPart
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from coflows.errors import (
    AccessDeniedError,
    CoflowsError,
    EndpointNotFoundError,
    NameInvalidError,
    QueryInvalidError,
    RegistryRefusedError,
    SerializationError,
    StoreError,
)
from coflows.model.hosts import is_loopback
from coflows.registry.limits import BodyLimit, LocalHosts
from coflows.registry.messages import Announcement, Target, Welcome
from coflows.registry.order import parse_order
from coflows.registry.page import MAX_BODY_BYTES, Cursor, Entries, Page, Update, Updated, Wanted
from coflows.registry.proof import Proof
from coflows.registry.query import MAX_QUERY, parse_query
from coflows.registry.rates import RateLimit, client_of
from coflows.registry.record import MAX_NUMBER
from coflows.registry.requests import FROM, SIGNATURE, Asker, check_request
from coflows.registry.service import Service
from coflows.registry.site import Site
from coflows.registry.urls import check_url

MAX_PAGE = 1000
T = TypeVar("T")
_STATUS: tuple[tuple[type[CoflowsError], int], ...] = (
    (NameInvalidError, 400),
    (QueryInvalidError, 400),
    (SerializationError, 400),
    (EndpointNotFoundError, 404),
    (AccessDeniedError, 403),
    (StoreError, 503),
)
_CODES = {404: "not_found", 405: "method_not_allowed", 413: "message_too_large"}
_PASSED_ON = ("origin", "forwarded", "x-forwarded-for", "x-real-ip", "via")


class Info(BaseModel):
    """Who a service is; idle when every connection is in step."""

    url: str
    organization: str
    registry: bool
    feed: bool
    role: str
    user_id: str
    idle: bool
    now: str
    total: int


class Item(BaseModel):
    """A flow that somebody serves."""

    id: str
    name: str
    organization: str
    description: str
    author: str
    tags: list[str]
    url: str
    node: str
    user_id: str
    flow_endpoint: str | None
    broker: str | None
    status: str
    input_schema: dict[str, Any]
    output_schema: dict[str, Any]


class Items(BaseModel):
    """A page of flows: of ``filtered`` that were found among ``total``."""

    total: int
    filtered: int
    p: int
    pp: int
    items: list[Item]


class Counts(BaseModel):
    """How many flows there are, of each organization and with each tag."""

    total: int
    organizations: dict[str, int]
    tags: dict[str, int]


class Problem(BaseModel):
    """What went wrong, where, and what to do next."""

    code: str
    message: str
    hint: str


class Failure(BaseModel):
    """The answer of whatever fails."""

    error: Problem


_REFUSED: dict[int | str, dict[str, Any]] = {
    400: {"model": Failure}, 401: {"model": Failure}, 403: {"model": Failure}, 404: {"model": Failure},
    409: {"model": Failure}, 413: {"model": Failure}, 422: {"model": Failure}, 429: {"model": Failure},
    503: {"model": Failure},
}  # fmt: skip


async def _asker(request: Request) -> Asker | None:
    """Who signed the request."""
    service: Service = request.app.state.service
    query = request.scope.get("query_string", b"").decode("latin-1")
    path = request.url.path + (f"?{query}" if query else "")
    asker = check_request(request.headers, service.url, request.method, path, await request.body())
    if asker is None:
        return None
    address = request.client.host if request.client else ""
    client = client_of(address, request.headers.get("x-forwarded-for"), service.options.listen is not None)
    return asker._replace(place=client or "")


Asked = Annotated[Asker | None, Depends(_asker)]


def make_app(service: Service) -> FastAPI:
    """The application of a service."""
    app = FastAPI(
        title="CoFlows registry",
        summary="Who serves which flows.",
        version="1",
        # Its pages load scripts from elsewhere, which may be anybody's, and need a network.
        docs_url=None,
        redoc_url=None,
        responses=_REFUSED,
    )
    app.state.service = service
    _add_errors(app)
    _add_listing(app, service)
    _add_exchange(app, service)
    app.add_middleware(BodyLimit, most=MAX_BODY_BYTES)
    app.add_middleware(Site)
    options = service.options
    app.add_middleware(
        RateLimit,
        rate=options.max_requests_per_client,
        at_once=options.max_requests_at_once,
        behind_proxy=options.listen is not None,
    )
    if service.options.local:
        app.add_middleware(LocalHosts)
    return app


def _add_listing(app: FastAPI, service: Service) -> None:
    @app.get("/", response_model=Info)
    def info() -> Any:
        """Who this service is."""
        return service.info()

    @app.get("/health")
    def health() -> dict[str, str]:
        """That it is there."""
        return {"status": "ok"}

    @app.get("/map")
    def nodes() -> dict[str, Any]:
        """The nodes it knows, and who is connected to whom."""
        return service.map()

    @app.get("/flows", response_model=Items)
    def flows(
        q: Annotated[str, Query(max_length=MAX_QUERY)] = "",
        by: Annotated[str, Query(max_length=200)] = "",
        pp: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 10,
        p: Annotated[int, Query(ge=0, le=10**9)] = 0,
    ) -> Any:
        """A page of flows."""
        found = service.listing.page(parse_query(q), parse_order(by), pp, p)
        return {"total": found.total, "filtered": found.filtered, "p": p, "pp": pp, "items": found.items}

    @app.get("/flows/{flow_id}", response_model=Item)
    def flow(flow_id: Annotated[str, PathPart(max_length=200)]) -> Any:
        """A flow."""
        return _there(flow_id, service.listing.find(flow_id))

    @app.get("/flows/{flow_id}/proof", response_model=Proof)
    def proof(flow_id: Annotated[str, PathPart(max_length=200)]) -> Any:
        """What shows that its user offers it: the record of his node, as he signed it, and the entry in it."""
        return _there(flow_id, service.listing.proof(flow_id))

    @app.get("/counts", response_model=Counts)
    def counts() -> Any:
        """How many flows there are."""
        return service.listing.counts()


def _there(flow_id: str, found: T | None) -> T:
    if found is None:
        raise EndpointNotFoundError(f"There is no flow {flow_id[:80]!r}.", hint="GET /flows lists them.")
    return found


def _add_exchange(app: FastAPI, service: Service) -> None:
    @app.get("/connect")
    def connections() -> dict[str, Any]:
        """Whom it is connected to, and who to it."""
        return service.connections()

    @app.post("/connect")
    def connect(said: Announcement | Target, request: Request, asked: Asked) -> Welcome | dict[str, Any]:
        """A service connects; or the owner says where to connect to."""
        if isinstance(said, Target):
            _check_owner(service, request, asked)
            service.add_link(said.url)
            return service.connections()
        return service.welcome(_signed(asked), said)

    @app.delete("/connect", status_code=204)
    def disconnect(
        request: Request, asked: Asked, url: Annotated[str | None, Query(max_length=500)] = None
    ) -> Response:
        """A service leaves; or the owner says that his leaves a registry, or all."""
        if asked is not None and asked.url:
            service.disconnect(asked)
        else:
            _check_owner(service, request, asked)
            service.remove_links(None if url is None else check_url(url).url)
        return Response(status_code=204)

    @app.post("/reconnect")
    def reconnect(request: Request, asked: Asked) -> dict[str, str]:
        """A registry is back; or the owner says so. Connections are made anew."""
        if asked is None or not asked.url:
            _check_owner(service, request, asked)
            service.reconnect(None)
        else:
            service.reconnect(asked)
        return {"status": "ok"}

    @app.post("/update")
    def update(said: Update, asked: Asked) -> Updated:
        """A connected service passes on what changed."""
        return service.update(_signed(asked), said)

    @app.get("/changes")
    def changes(
        records: Annotated[int, Query(ge=0, lt=MAX_NUMBER)] = 0, beats: Annotated[int, Query(ge=0, lt=MAX_NUMBER)] = 0
    ) -> Page:
        """What changed here after the cursor."""
        return service.give(Cursor(records=records, beats=beats))

    @app.post("/entries")
    def entries(said: Wanted) -> Entries:
        """The entries of these digests."""
        return Entries(entries=service.entries(said.digests))


def _signed(asked: Asker | None) -> Asker:
    if asked is None or not asked.url:
        raise RegistryRefusedError(
            "This has to be signed by the service that asks.",
            status=401,
            reason="unsigned",
            hint=f"Headers {SIGNATURE} and {FROM}; `coflows registry run` sends them.",
        )
    return asked


def _check_owner(service: Service, request: Request, asked: Asker | None) -> None:
    """The owner signs; or, when the service is for this machine alone, is on it himself: not a page in his browser, and
    nobody behind a proxy."""
    if asked is not None and asked.user_id == service.identity.user_id and not asked.url:
        service.reception.once(asked)
        return
    client = request.client.host if request.client else ""
    here = service.options.local and is_loopback(client) and is_loopback(request.url.hostname or "")
    if asked is not None or not here or any(name in request.headers for name in _PASSED_ON):
        raise RegistryRefusedError(
            "Only the owner of this service may say that.",
            status=401,
            reason="unsigned",
            hint="Use `coflows registry`, which signs it.",
        )


def _add_errors(app: FastAPI) -> None:
    def told(status: int, code: str, message: str, hint: str = "") -> JSONResponse:
        return JSONResponse({"error": {"code": code, "message": message, "hint": hint}}, status)

    @app.exception_handler(CoflowsError)
    def failed(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, CoflowsError)
        if isinstance(error, RegistryRefusedError):
            return told(error.status, error.reason or error.code, error.message, error.hint)
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        return told(status, error.code, error.message, error.hint)

    @app.exception_handler(RequestValidationError)
    def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return told(422, "request_invalid", f"{where}: {first['msg']}.".encode("utf-8", "replace").decode())

    @app.exception_handler(HTTPException)
    def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        hint = "GET /openapi.json says what is asked how." if error.status_code in (404, 405) else ""
        answer = told(error.status_code, _CODES.get(error.status_code, "http"), str(error.detail), hint)
        answer.headers.update(error.headers or {})
        return answer
