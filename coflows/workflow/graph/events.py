"""What may happen to a graph. Every event says when (``at``, seconds since the epoch): the graph has no clock."""

from __future__ import annotations

from dataclasses import dataclass

from coflows.workflow.graph.commands import Timer
from coflows.workflow.graph.process import ProcessSpec


@dataclass(frozen=True, slots=True)
class Submitted:
    """The graph's processes. Refused as a whole (WorkflowInvalidError) when they make no graph."""

    processes: tuple[ProcessSpec, ...]
    at: float = 0.0
    max_step_inputs: int = 100_000
    """How many children a group may grow."""
    max_needs: int = 100_000
    """How many parents a process may have."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The answer to Decide: whether a process is to run."""

    process: str
    run: bool
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Started:
    """An executor began an attempt."""

    process: str
    attempt: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Succeeded:
    """An attempt gave an output; ``items`` is how many items it has when it is a list, else None."""

    process: str
    attempt: int
    at: float = 0.0
    items: int | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt failed, or (attempt 0) the decision about it did. ``retry``: whether trying again may help."""

    process: str
    attempt: int
    reason: str = ""
    at: float = 0.0
    retry: bool = True


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The runner stopped an attempt that took longer than ``maxexectime``."""

    process: str
    attempt: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Lost:
    """The executor of an attempt is gone. It is given out again at once, and this is no retry."""

    process: str
    attempt: int
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """One process, or with None the whole graph, is to stop."""

    process: str | None = None
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class ChildAdded:
    """A new process below ``parent`` and, if given, above ``child``, which must not have been given out.

    ``insert``: it comes between the two, whose edge goes; else beside what is between them. ``spec.needs`` is empty.
    Refused (WorkflowInvalidError) when that makes no graph.
    """

    parent: str
    child: str | None
    spec: ProcessSpec
    insert: bool = False
    at: float = 0.0


@dataclass(frozen=True, slots=True)
class TimerDue:
    """A timer that was set is due. One that was cleared or that is of a former attempt changes nothing."""

    timer: Timer
    at: float = 0.0


Event = Submitted | Decided | Started | Succeeded | Failed | TimedOut | Lost | Cancelled | ChildAdded | TimerDue
