"""Share running flows: serve a flow class at a named endpoint, fetch an instance, message it, await the reply."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coflows.client import Client
    from coflows.connecting import connect, start_users
    from coflows.flows import AtomicFlow, CompositeFlow, Flow, KeyInterface
    from coflows.futures import FlowFuture
    from coflows.model.messages import FlowMessage

__all__ = [
    "AtomicFlow",
    "Client",
    "CompositeFlow",
    "Flow",
    "FlowFuture",
    "FlowMessage",
    "KeyInterface",
    "connect",
    "start_users",
]

_HOMES = {
    "AtomicFlow": "flows",
    "Client": "client",
    "CompositeFlow": "flows",
    "Flow": "flows",
    "FlowFuture": "futures",
    "FlowMessage": "model.messages",
    "KeyInterface": "flows",
    "connect": "connecting",
    "start_users": "connecting",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: importing the package costs next to nothing (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'coflows' has no attribute {name!r}")
    value = getattr(import_module(f"coflows.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
