"""Nodes, registries and providers: who serves which flows, told over HTTP."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coflows.registry.client import Registry
    from coflows.registry.running import RunningService, run_service, start_service

__all__ = ["Registry", "RunningService", "run_service", "start_service"]

_HOMES = {"Registry": "client", "RunningService": "running", "run_service": "running", "start_service": "running"}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: who only asks a registry needs no web server."""
    if name not in _HOMES:
        raise AttributeError(f"module 'coflows.registry' has no attribute {name!r}")
    value = getattr(import_module(f"coflows.registry.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
