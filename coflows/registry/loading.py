"""From what a caller gives as loader to options and flows."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, cast

from coflows.client import Client
from coflows.config import Settings
from coflows.connecting import open_client, which_user
from coflows.endpoints import endpoint_names, find_endpoints
from coflows.errors import ConfigurationError, UserExistsError
from coflows.identity.home import Home
from coflows.identity.keys import Identity
from coflows.registry.options import NO_LOADER, Options, make_options
from coflows.registry.sources import FlowSource, ListedFlows, ServedFlows

logger = logging.getLogger(__name__)

Loader = str | Path | Mapping[str, Any] | Client | Callable[[], Any] | None
Passphrase = str | Callable[[str], str | None] | None
"""Of a user's keys, or what gives it for his name; without one it is that of the settings."""
STORE = "store"


class Setup(NamedTuple):
    """All that a service is made of. ``opened`` is the session that was opened for it, to close; ``doubt`` what its
    owner is to be warned of."""

    options: Options
    identity: Identity
    source: FlowSource
    opened: Client | None
    doubt: str | None = None


def set_up(loader: Loader, said: dict[str, Any], settings: Settings, passphrase: Passphrase = None) -> Setup:
    """Read the loader. Raises ConfigurationError, and what a flow's class or a user's keys raise."""
    if isinstance(loader, Client):
        options = make_options(said, {})
        broker = options.broker or shown_broker(loader.settings.broker_url)
        return Setup(options.model_copy(update={"broker": broker}), loader.identity, ServedFlows(loader), None)
    loaded, where = _read(loader)
    live = loaded.get("flows") == STORE
    if live:
        loaded = {name: value for name, value in loaded.items() if name != "flows"}
    options = make_options(said, loaded, where)
    if live:
        name = which_user(options.user)
        cl = open_client(name, passphrase=_told(passphrase, name))
        broker = options.broker or shown_broker(settings.broker_url)
        return Setup(options.model_copy(update={"broker": broker}), cl.identity, ServedFlows(cl), cl)
    identity = service_identity(options.user, settings, passphrase)
    source = ListedFlows(options.flows, settings.flow_modules)
    return Setup(options, identity, source, None, _unserved(identity, source, settings, passphrase))


def _unserved(identity: Identity, source: ListedFlows, settings: Settings, passphrase: Passphrase) -> str | None:
    """Which endpoints are listed and not served: whoever finds one could not fetch it."""
    offered = [entry.flow_endpoint for entry in source.entries() if entry.flow_endpoint is not None]
    user = next((name for name, user_id in Home(settings.home).list_users() if user_id == identity.user_id), None)
    if not offered or user is None:
        return None
    with open_client(user, passphrase=_told(passphrase, user)) as cl:
        served = {name: one for name, one in find_endpoints(cl.store, endpoint_names(cl.store)).items() if one.served}
    lacking = [name for name in offered if name not in served]
    if not lacking:
        return None
    there = ", ".join(name for name, one in served.items() if not one.internal) or "nothing"
    return f"User {user} does not serve {', '.join(lacking)}, which this node lists; he serves {there}."


def _read(loader: Loader) -> tuple[dict[str, Any], str]:
    if loader is None:
        return {}, NO_LOADER
    if isinstance(loader, str) and (loader == STORE or loader.startswith(f"{STORE}:")):
        return {"flows": STORE, "user": loader.partition(":")[2] or None}, loader
    where, value = str(loader), cast(Any, loader)
    if isinstance(loader, str) and ":" in loader and not loader.endswith((".yaml", ".yml")):
        value = _imported(loader)()
    elif isinstance(loader, str | Path):
        value = _yaml(Path(loader))
    elif callable(loader):
        where, value = getattr(loader, "__qualname__", "the loader"), loader()
    else:
        where = "the loader"
    if isinstance(value, list):
        value = {"flows": value}
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{where} gives a {type(value).__name__}, not a mapping.", hint="See docs/registry.md."
        )
    return dict(value), where


def _imported(loader: str) -> Callable[[], Any]:
    module, _, name = loader.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(f"The loader {loader!r} cannot be imported: {error}.") from error
    if not callable(found):
        raise ConfigurationError(f"The loader {loader!r} cannot be called.")
    return found  # type: ignore[no-any-return]


def _yaml(path: Path) -> object:
    import yaml

    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise ConfigurationError(
            f"The loader {path} cannot be read: {error.strerror}.",
            hint="It is a YAML file, module:callable, or store:USER: docs/registry.md shows each.",
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError(f"The loader {path} is not YAML: {error}.") from error


def service_identity(user: str | None, settings: Settings, passphrase: Passphrase = None) -> Identity:
    """Who signs: the user named, or the only one there is; else the services of this home have a key of their own."""
    home = Home(settings.home)
    name = user or settings.user
    if name is None and len(known := home.user_names()) == 1:
        name = known[0]
    if name is not None:
        return home.load_user(name, _told(passphrase, name) or settings.passphrase)
    own = Home(settings.home / "services")
    if not own.user_names():
        with suppress(UserExistsError):  # Another service of this home was quicker.
            return own.create_user("service")
    return own.load_user("service")


def _told(passphrase: Passphrase, name: str) -> str | None:
    return passphrase(name) if callable(passphrase) else passphrase


def shown_broker(url: str) -> str:
    """A broker's URL as others may see it: without user and password."""
    scheme, mark, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}"[:200]
