"""Workflows: functions in a graph, run in order, in parallel where possible, with retries and deadlines."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coflows.workflow.colonies.colonies import Colonies
    from coflows.workflow.colonies.executor import Executor
    from coflows.workflow.colonies.function_spec import FunctionSpec, Workflow, func_spec
    from coflows.workflow.colonies.process_graph import Process, ProcessGraph
    from coflows.workflow.configuration import Configuration
    from coflows.workflow.decorators import foreach, join, needs, optional, remote, repeat, step
    from coflows.workflow.flow_graph import FlowGraph
    from coflows.workflow.flow_spec import FlowSpec
    from coflows.workflow.flow_step import (
        STATUS_CANCELLED,
        STATUS_FAILED,
        STATUS_PENDING,
        STATUS_RUNNING,
        STATUS_SKIPPED,
        STATUS_SUCCEEDED,
        FlowNode,
        FlowStep,
    )
    from coflows.workflow.progress import Progress
    from coflows.workflow.published import Published, read_published, watch_published
    from coflows.workflow.runner import Runner

__all__ = [
    "Colonies",
    "Configuration",
    "Executor",
    "FlowGraph",
    "FlowNode",
    "FlowSpec",
    "FlowStep",
    "FunctionSpec",
    "Process",
    "ProcessGraph",
    "Progress",
    "Published",
    "Runner",
    "STATUS_CANCELLED",
    "STATUS_FAILED",
    "STATUS_PENDING",
    "STATUS_RUNNING",
    "STATUS_SKIPPED",
    "STATUS_SUCCEEDED",
    "Workflow",
    "foreach",
    "func_spec",
    "join",
    "needs",
    "optional",
    "read_published",
    "remote",
    "repeat",
    "step",
    "watch_published",
]

_HOMES = {
    "colonies.colonies": ("Colonies",),
    "colonies.executor": ("Executor",),
    "colonies.function_spec": ("FunctionSpec", "Workflow", "func_spec"),
    "colonies.process_graph": ("Process", "ProcessGraph"),
    "configuration": ("Configuration",),
    "decorators": ("foreach", "join", "needs", "optional", "remote", "repeat", "step"),
    "flow_graph": ("FlowGraph",),
    "flow_spec": ("FlowSpec",),
    "flow_step": ("FlowNode", "FlowStep", *(name for name in __all__ if name.startswith("STATUS_"))),
    "progress": ("Progress",),
    "published": ("Published", "read_published", "watch_published"),
    "runner": ("Runner",),
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for: the pure graph is used below, by what must not load the rest."""
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(f"coflows.workflow.{home}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'coflows.workflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
