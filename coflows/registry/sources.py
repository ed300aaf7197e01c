"""Where a node's flows come from: a list that its loader gave, or what a user serves, live."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from coflows.client import Client
from coflows.endpoints import endpoint_names, find_endpoints
from coflows.errors import CoflowsError, ConfigurationError, FlowError, SerializationError, StoreError
from coflows.flows.flow import Flow
from coflows.flows.loading import resolve_flow_class
from coflows.flows.models import json_schema
from coflows.model.layout import SERVED
from coflows.registry.entry import MAX_TAGS, FlowEntry, first_problem
from coflows.registry.options import FlowSpec
from coflows.store.base import ABSENT

logger = logging.getLogger(__name__)


LOOK_SECONDS = 0.5
"""How late it is seen that a user serves something else."""


class FlowSource(Protocol):
    """Gives the flows of a node."""

    def entries(self) -> list[FlowEntry]:
        """The flows as they are now."""

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` soon after they became others, from any thread, until what this returns is called."""


class ListedFlows:
    """The flows that a loader lists. Classes that it names are looked at once. Raises FlowClassError, FlowConfigError
    or ConfigurationError."""

    def __init__(self, specs: Sequence[FlowSpec], base_paths: Sequence[Path]) -> None:
        self._entries = [_listed(number, spec, base_paths) for number, spec in enumerate(specs)]
        seen: dict[str, FlowEntry] = {}
        for number, entry in enumerate(self._entries):
            if entry.key in seen:
                self._entries[number] = entry = entry.model_copy(update={"key": f"{entry.key[:190]}#{number}"})
            seen[entry.key] = entry

    def entries(self) -> list[FlowEntry]:
        """All of them."""
        return self._entries

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """They stay as they are."""
        return lambda: None


class ServedFlows:
    """What a user serves: each endpoint, from when he serves it until he unserves it; his colonies and executors
    aside."""

    def __init__(self, cl: Client) -> None:
        self._cl = cl

    def entries(self) -> list[FlowEntry]:
        """What is served now. A class that cannot be loaded here is listed by its endpoint alone."""
        found = find_endpoints(self._cl.store, list(endpoint_names(self._cl.store)))
        return [
            self._entry(name, one.flow_class_name) for name, one in found.items() if one.served and not one.internal
        ]

    def _entry(self, name: str, flow_class_name: str) -> FlowEntry:
        try:
            flow_class = resolve_flow_class(flow_class_name, self._cl.settings.flow_modules)
            return _entry({"key": name, "flow_endpoint": name, **_from_class(flow_class)})
        except (FlowError, ConfigurationError, SerializationError) as error:
            logger.warning("%s is listed by its endpoint alone: %s", name, error)
            return FlowEntry(key=name, name=name, flow_endpoint=name)

    def watch(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Called when an endpoint is served or unserved. A watch of the store would have every commit of the user's
        workers logged, and read here, for a change in thousands."""
        ended = threading.Event()
        known = self._last_change()

        def look() -> None:
            last = known
            while not ended.wait(LOOK_SECONDS):
                try:
                    now = self._last_change()
                except StoreError as error:
                    logger.debug("What is served is not known now: %s", error)
                    continue
                if now != last:
                    last = now
                    changed()

        thread = threading.Thread(target=look, name="coflows-served", daemon=True)
        thread.start()

        def end() -> None:
            ended.set()
            thread.join()

        return end

    def _last_change(self) -> int:
        entry = self._cl.store.get(SERVED)
        return ABSENT if entry is None else entry.version


def _listed(number: int, spec: FlowSpec, base_paths: Sequence[Path]) -> FlowEntry:
    said = {name: value for name, value in spec.model_dump(exclude={"entry", "endpoint"}).items() if value is not None}
    config: dict[str, Any] = {}
    if spec.entry is not None:
        config = _from_class(resolve_flow_class(spec.entry.replace(":", "."), base_paths))
    name = spec.endpoint or spec.entry or spec.name
    if name is None:
        raise ConfigurationError(f"Flow {number + 1} of the loader has no entry, endpoint or name.")
    try:
        return _entry({"key": name, "name": name, "flow_endpoint": spec.endpoint, **config, **said})
    except CoflowsError as error:
        raise ConfigurationError(f"Flow {number + 1} of the loader, {name!r}, is not valid: {error}") from error


def _entry(values: Mapping[str, Any]) -> FlowEntry:
    try:
        entry = FlowEntry.model_validate(dict(values))
    except (ValidationError, ValueError) as error:
        raise ConfigurationError(f"{first_problem(error)}.") from error
    entry.text()
    return entry


def _from_class(flow_class: type[Flow]) -> dict[str, Any]:
    """What a flow's config says of it, and the models that it declares."""
    config = flow_class.get_config()
    tags, author = config.get("tags"), config.get("author")
    return {
        "name": " ".join(str(config["name"]).split())[:200],
        "description": str(config["description"])[:8000],
        "author": author if isinstance(author, str) else "",
        "tags": [tag for tag in tags if isinstance(tag, str)][:MAX_TAGS] if isinstance(tags, list) else [],
        "input_schema": json_schema(flow_class, "Input") or _schema(config, "input"),
        "output_schema": json_schema(flow_class, "Output") or _schema(config, "output"),
    }


def _schema(config: Mapping[str, Any], side: str) -> dict[str, Any]:
    """The JSON Schema that the config has, or that its interface, a list of keys, amounts to."""
    schema, keys = config.get(f"{side}_schema"), config.get(f"{side}_interface")
    if isinstance(schema, dict):
        return schema
    if not keys:
        return {}
    return {"type": "object", "properties": {key: {} for key in keys}, "required": list(keys)}
