"""The processes: thin over coflows. Each ``run_*`` returns a handle with ``stop()``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.dispatch_worker import run_dispatch_worker_thread, run_dispatch_worker_threads
    from workers.get_instance_worker import run_get_instance_worker_thread
    from workers.handle import WorkerHandle

__all__ = [
    "WorkerHandle",
    "run_dispatch_worker_thread",
    "run_dispatch_worker_threads",
    "run_get_instance_worker_thread",
]

_HOMES = {
    "WorkerHandle": "handle",
    "run_dispatch_worker_thread": "dispatch_worker",
    "run_dispatch_worker_threads": "dispatch_worker",
    "run_get_instance_worker_thread": "get_instance_worker",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: ``python -m workers.dispatch_worker`` would warn of a module that
    its package has loaded already (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'workers' has no attribute {name!r}")
    value = getattr(import_module(f"workers.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
