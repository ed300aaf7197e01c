"""The states of a process and of a whole graph."""

from __future__ import annotations

from enum import StrEnum


class ProcessState(StrEnum):
    """Where a process is. A process that waits for its parents, for an executor or for its next attempt is WAITING."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    SKIPPED = "SKIPPED"
    """Its condition said no; those that need it get None."""
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    """It never ran, since something that it requires failed, was cancelled or did not run either."""


class GraphState(StrEnum):
    """Where a graph is. It is over when all its processes are."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Awaits(StrEnum):
    """What a process that is not running and not over waits for."""

    NOTHING = ""
    PARENTS = "parents"
    DECISION = "decision"
    """Whether it is to run at all."""
    EXECUTOR = "executor"
    """It is ready; nobody has begun it yet."""
    RETRY = "retry"


ENDED = frozenset(
    {
        ProcessState.SUCCESS,
        ProcessState.FAILED,
        ProcessState.CANCELLED,
        ProcessState.SKIPPED,
        ProcessState.UPSTREAM_FAILED,
    }
)
UNDELIVERED = frozenset({ProcessState.FAILED, ProcessState.CANCELLED, ProcessState.UPSTREAM_FAILED})
"""The ends that a required edge carries on."""
GRAPH_ENDED = frozenset({GraphState.SUCCESS, GraphState.FAILED, GraphState.CANCELLED})
