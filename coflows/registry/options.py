"""How a service is set up: what its caller says, over what its loader says, over the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from coflows.errors import ConfigurationError, NameInvalidError
from coflows.model.hosts import is_loopback
from coflows.registry.entry import Line, Tag, first_problem
from coflows.registry.record import MAX_CONNECT, role_of
from coflows.registry.urls import LOOPBACK, check_url

DEFAULT_URL = "http://localhost:3366"


class FlowSpec(BaseModel):
    """A flow as a loader says it: at an ``endpoint`` that the user serves, or of the class that ``entry`` names, or
    only described. What it does not say comes from the class."""

    model_config = ConfigDict(extra="forbid")

    entry: Line | None = None
    endpoint: Line | None = None
    url: str = ""
    name: str | None = None
    description: str | None = None
    author: str | None = None
    tags: list[Tag] | None = None
    input_schema: dict[str, Any] | None = None
    output_schema: dict[str, Any] | None = None


class Options(BaseModel):
    """All settings of a service; times are in seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = DEFAULT_URL
    """By which others know it; with port 0 a free port is taken."""
    listen: str | None = None
    """HOST:PORT to listen at when that is not what the URL says: behind a proxy."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    """PEM files with which it speaks TLS itself; the URL is https then."""
    allow_plaintext: bool = False
    """Whether it may be open to other machines without TLS."""
    organization: Line | None = None
    connect: Annotated[tuple[str, ...], Field(max_length=MAX_CONNECT)] = ()
    registry: bool = True
    feed: bool = True
    flows: tuple[FlowSpec, ...] = ()
    user: str | None = None
    broker: Line | None = None
    reach: tuple[Literal["loopback", "private"], ...] = ()
    """What besides the public network it may dial when others name the URL. A service on this machine's loopback may
    dial others there."""
    cache_data: Path | None = None
    cache_reset: bool = False
    screen_level: str = "INFO"
    log_file: Path | None = None
    log_file_level: str = "DEBUG"
    exec_data: Path | None = None
    timeout: Annotated[float, Field(gt=0, le=3600)] = 30
    retry: Annotated[int, Field(ge=-1)] = 9
    heartbeat: Annotated[float, Field(gt=0, le=3600)] = 5
    offline_after: Annotated[float, Field(gt=0)] = 30
    ttl: Annotated[float, Field(gt=0)] = 86400
    max_nodes: Annotated[int, Field(ge=1)] = 10_000
    max_bytes: Annotated[int, Field(ge=1)] = 2**30
    """Of all records and entries; the cache is about three times as large."""
    max_nodes_per_user: Annotated[int, Field(ge=1)] = 100
    max_flows_per_node: Annotated[int, Field(ge=0, le=10_000)] = 10_000
    max_connections: Annotated[int, Field(ge=1)] = 1000
    max_connections_per_client: Annotated[int, Field(ge=1)] = 100
    max_requests_per_client: Annotated[float, Field(gt=0)] = 100
    """A second; see rates.py."""
    max_requests_at_once: Annotated[int, Field(ge=1)] = 20
    """Of a client. Half as many as are answered at the same time."""

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        return check_url(value).url

    @field_validator("connect", mode="before")
    @classmethod
    def _connect(cls, value: object) -> object:
        if value is None:
            return ()
        urls = [value] if isinstance(value, str) else value
        return tuple(dict.fromkeys(check_url(url).url for url in urls)) if isinstance(urls, list | tuple) else urls

    @field_validator("flows", mode="before")
    @classmethod
    def _flows(cls, value: object) -> object:
        return () if value is None else value

    @property
    def role(self) -> str:
        """Node, registry or provider."""
        return role_of(self.registry, self.feed)

    @property
    def local(self) -> bool:
        """Whether it is for this machine alone: then who is on it may command it without signing."""
        return is_loopback(check_url(self.url).host) and self.listen is None

    @property
    def callback_reach(self) -> frozenset[str]:
        """What may be dialled when others name it."""
        return frozenset(self.reach) | ({LOOPBACK} if self.local else frozenset())


DEFAULTS = Options()


NO_LOADER = "the call"
"""Where options come from that no loader gives."""


def make_options(said: dict[str, Any], loaded: dict[str, Any], where: str = "the loader") -> Options:
    """What the caller says, as far as it is not the default, goes before what the loader says. Raises
    ConfigurationError."""
    for place, values in ((where, loaded), (NO_LOADER, said)):
        unknown = values.keys() - Options.model_fields.keys()
        if unknown:
            raise ConfigurationError(
                f"{place} has {', '.join(sorted(map(str, unknown)))}, which no service knows.",
                hint=f"It knows {', '.join(Options.model_fields)}.",
            )
    given = {name: value for name, value in said.items() if value != getattr(DEFAULTS, name) and value is not None}
    try:
        return Options(**{**loaded, **given})
    except (ValidationError, NameInvalidError) as error:
        what = "The arguments" if where == NO_LOADER else f"{where}, or the arguments beside it,"
        raise ConfigurationError(
            f"{what} are not valid: {first_problem(error)}.",
            hint=f"A flow has {', '.join(FlowSpec.model_fields)}." if "flows" in first_problem(error) else "",
        ) from error
