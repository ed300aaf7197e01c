"""One process of a graph: what was submitted (`ProcessSpec`) and where it is (`Status`)."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from coflows.workflow.graph.states import ENDED, Awaits, ProcessState

Record = TypeVar("Record", bound=Any)
MAX_LOSSES = 5
"""How many executors may be lost over one process before it is given up."""


class Policy(NamedTuple):
    """How a process is tried. Times are in seconds; -1 is no limit."""

    maxretries: int = 0
    """How often it is tried again after it failed or took too long."""
    maxexectime: float = -1
    """How long one attempt may run."""
    maxwaittime: float = -1
    """How long it may wait for an executor, from when it is ready."""
    priority: int = 0
    """Of those that are ready, the highest is begun first."""
    backoff: float = 0
    """The wait before the first retry; it doubles with each further one."""
    maxbackoff: float = 60
    """The longest wait before a retry."""

    def delay(self, retry: int) -> float:
        """The wait before the ``retry``-th retry, counted from 1."""
        return min(self.backoff * 2.0 ** min(retry - 1, 64), self.maxbackoff)


class Need(NamedTuple):
    """An edge, as the child sees it."""

    process: str
    required: bool = True
    """Whether the child cannot do without it; else the child gets None when it fails."""
    each: bool = False
    """Whether a group has one child for each item of it, rather than all of it as one input."""


class ProcessSpec(NamedTuple):
    """What a process is. What it runs is no business of the graph's: a face keeps that under the process's name."""

    name: str
    needs: tuple[Need, ...] = ()
    policy: Policy = Policy()
    executortype: str = ""
    group: bool = False
    """It does not run itself. When what it needs is there it grows one child ``name[i]`` for each combination of the
    items of its ``each`` needs (the last one varies fastest), times ``repetitions``, and it is over when they are."""
    repetitions: int = 1
    foreach: bool = False
    """Its output is a list whose items stand for themselves."""
    conditional: bool = False
    """Somebody is asked, when it is ready, whether it is to run."""


class Status(NamedTuple):
    """Where a process is. Times are seconds since the epoch, of the events' clock; 0 is not yet."""

    seq: int
    """The order in which processes came to the graph."""
    state: ProcessState = ProcessState.WAITING
    awaits: Awaits = Awaits.PARENTS
    pending: int = 0
    """How many parents are not over; of a group that has grown, how many of its children."""
    attempt: int = 0
    """The number of the attempt that was given out last, counted from 1."""
    retries: int = 0
    losses: int = 0
    size: int | None = None
    """How many items its output has (or will have), where a group may take them one by one; None for one value."""
    children: int = 0
    """How many children a group has grown."""
    needs: int = 0
    """How many edges to parents it was ever given; some may be gone."""
    dependents: int = 0
    """How many edges to children it was ever given; some may be gone."""
    blame: str = ""
    """The process whose failure this is."""
    reason: str = ""
    ready_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    @property
    def items(self) -> int | None:
        """How many items a group that takes them one by one finds; None when there is one value, or nothing."""
        return self.size if self.state is ProcessState.SUCCESS else None

    @property
    def given_out(self) -> bool:
        """Whether an attempt is with the runner: begun, or waiting for an executor."""
        return self.awaits is Awaits.EXECUTOR or (self.state is ProcessState.RUNNING and self.attempt > 0)


def replaced(record: Record, **changes: Any) -> Record:
    """What ``record._replace`` gives, in half the time: a step does little else."""
    values, fields = list(record), record._fields
    for name, value in changes.items():
        values[fields.index(name)] = value
    return tuple.__new__(type(record), values)


def child_name(group: str, index: int) -> str:
    """The name of a group's child. Names that are submitted have no brackets."""
    return f"{group}[{index}]"


def parse_child(name: str) -> tuple[str, int] | None:
    """The group and index of a group's child, None for any other process."""
    if name[-1] != "]":
        return None
    group, _, index = name[:-1].rpartition("[")
    return group, int(index)
