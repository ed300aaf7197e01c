"""The subflows of a running flow, by key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from coflows.errors import FlowConfigError, FlowError
from coflows.flows.runtime import FlowRuntime, Subflow


class Subflows(Mapping[str, Subflow]):
    """A mapping whose values are proxies, made when asked for. Raises FlowConfigError for an unknown key, and
    FlowError for a known one without a worker."""

    def __init__(self, config: Mapping[str, Any], runtime: FlowRuntime | None, owner: str) -> None:
        self._config = config
        self._runtime = runtime
        self._owner = owner

    def __getitem__(self, key: str) -> Subflow:
        if key not in self._config:
            raise FlowConfigError(
                f"{self._owner} has no subflow {key!r}.", hint=f"It has: {', '.join(self._config) or 'none'}."
            )
        if self._runtime is None:
            raise FlowError(
                f"{self._owner} is not running in a worker, so its subflow {key!r} cannot be called.",
                hint="Serve it and send it a message; in a unit test, bind() a runtime of your own.",
            )
        return self._runtime.subflow(key)

    def get(self, key: str, default: Any = None) -> Any:
        """The subflow, or ``default`` when the config has none of that key."""
        return self[key] if key in self._config else default

    def __contains__(self, key: object) -> bool:
        return key in self._config

    def __iter__(self) -> Iterator[str]:
        return iter(self._config)

    def __len__(self) -> int:
        return len(self._config)

    def __repr__(self) -> str:
        return f"<Subflows {', '.join(self._config) or 'none'}>"
