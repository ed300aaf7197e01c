"""Settings, and the only place where the environment is read."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coflows.errors import ConfigurationError

SECRET_PREFIX = "COFLOWS_SECRET_"
_ENV_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)\Z")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment (``COFLOWS_`` and the name in capitals) says, or the default. Times are in seconds."""

    home: Path
    broker_url: str = field(repr=False)
    broker_admin_url: str | None = field(repr=False)
    """RabbitMQ's management, for who makes accounts."""
    store_url: str = field(repr=False)
    user: str | None
    flow_modules: tuple[Path, ...]
    max_message_bytes: int
    call_ttl: float
    connect_timeout: float
    log_level: str
    envelope_version: int
    """What this side writes; 1 while a peer is still to be upgraded, both are read."""
    max_attempts: int
    """How often a message is worked on whose worker dies over it, before it goes to the dead letters."""
    park_after: float
    """After how long a turn's message is kept in the store instead of the broker."""
    allow_plaintext: bool
    """Whether passwords may go to other machines without TLS: no warning of a broker, no refusal of its management."""
    passphrase: str | None = field(repr=False)
    """Of the user's keys."""
    registries: tuple[str, ...]
    """URLs of the registries that are asked who serves a flow."""
    trusted: tuple[str, ...]
    """Ids of users whose flows a name means before anybody else's."""
    failpoints: str
    """For fault tests: ``name:count``; the process kills itself when it comes to that point for the count-th time."""


def load_settings(**overrides: Any) -> Settings:
    """Read the settings now; ``overrides`` win. Raises ConfigurationError naming the variable."""
    # Imported here because it costs more time than all of coflows, and not every import reads settings.
    from pydantic import Field, ValidationError
    from pydantic_settings import BaseSettings, SettingsConfigDict

    class Environment(BaseSettings):
        model_config = SettingsConfigDict(env_prefix="COFLOWS_", extra="ignore")
        home: Path = Path("~/.coflows")
        broker_url: str = "embedded://"
        broker_admin_url: str | None = None
        store_url: str = "sqlite://"
        user: str | None = None
        flow_modules: str = ""
        max_message_bytes: int = Field(2**20, ge=1024, le=2**26)
        call_ttl: float = Field(7 * 86400.0, gt=0, le=90 * 86400.0)
        connect_timeout: float = Field(10.0, gt=0)
        log_level: str = Field("INFO", pattern=r"(?i)^(debug|info|warning|error|critical)$")
        envelope_version: int = Field(2, ge=1, le=2)
        max_attempts: int = Field(5, ge=1)
        park_after: float = Field(5.0, gt=0)
        allow_plaintext: bool = False
        passphrase: str | None = None
        registries: str = ""
        trusted: str = ""
        failpoints: str = Field("", pattern=r"^([a-z_]+:[0-9]+)?$")

    try:
        read = Environment(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        name = "_".join(str(part) for part in first["loc"]).upper()
        raise ConfigurationError(f"COFLOWS_{name} is not valid: {first['msg']}.") from error
    return Settings(
        home=read.home.expanduser().absolute(),
        broker_url=read.broker_url,
        broker_admin_url=read.broker_admin_url,
        store_url=read.store_url,
        user=read.user,
        flow_modules=tuple(Path(part).absolute() for part in read.flow_modules.split(os.pathsep) if part),
        max_message_bytes=read.max_message_bytes,
        call_ttl=read.call_ttl,
        connect_timeout=read.connect_timeout,
        log_level=read.log_level.upper(),
        envelope_version=read.envelope_version,
        max_attempts=read.max_attempts,
        park_after=read.park_after,
        allow_plaintext=read.allow_plaintext,
        passphrase=read.passphrase,
        registries=tuple(dict.fromkeys(read.registries.replace(",", " ").split())),
        trusted=tuple(dict.fromkeys(read.trusted.replace(",", " ").split())),
        failpoints=read.failpoints,
    )


def secrets_from_environment(prefix: str = SECRET_PREFIX) -> dict[str, str]:
    """The variables that begin with ``prefix``, without it."""
    return {name[len(prefix) :]: value for name, value in os.environ.items() if name.startswith(prefix)}


def load_secrets_file(path: Path) -> dict[str, str]:
    """Read KEY=VALUE lines (blank lines and # comments allowed). Raises ConfigurationError naming file and line, and
    when others than the owner may read the file."""
    try:
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"Cannot read the secrets file {path}: {error}.") from error
    if mode & 0o077:
        raise ConfigurationError(f"Others may read the secrets file {path}.", hint=f"Run: chmod 600 {path}")
    secrets: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = _ENV_LINE.match(line.strip())
        if match is None:
            raise ConfigurationError(f"{path}:{number} is not of the form KEY=VALUE.")
        value = match[2].strip()
        quoted = len(value) >= 2 and value[0] == value[-1] and value[0] in "'\""
        secrets[match[1]] = value[1:-1] if quoted else value
    return secrets
