"""A submitted workflow and its processes as who asks sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coflows.errors import SerializationError
from coflows.workflow.colonies.function_spec import FunctionSpec, read_spec
from coflows.workflow.colonies.places import GraphId, ProcessId
from coflows.workflow.graph.states import ENDED, GRAPH_ENDED, GraphState, ProcessState


class Row(NamedTuple):
    """One process in a graph's list. Times are seconds since the epoch, 0 is not yet."""

    name: str
    state: ProcessState
    executortype: str
    started_at: float
    ended_at: float


@dataclass(frozen=True, slots=True)
class ProcessGraph:
    """A submitted workflow, as it was when it was asked for. Times are seconds since the epoch, 0 is not yet."""

    processgraphid: str
    state: GraphState
    initiator: str
    submitted_at: float
    started_at: float
    ended_at: float
    reason: str = ""
    """Why it failed, with the step's name."""
    rows: tuple[Row, ...] = field(default=(), repr=False)

    @property
    def processids(self) -> list[str]:
        """The ids of its processes, in the order in which they came."""
        graph = GraphId.parse(self.processgraphid)
        return [str(ProcessId(graph, row.name)) for row in self.rows]

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.state in GRAPH_ENDED

    @property
    def done(self) -> int:
        """How many of its processes are over."""
        return sum(row.state in ENDED for row in self.rows)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ProcessGraph:
        """Check and build; raises SerializationError. Safe on data from other users."""
        try:
            rows = tuple(
                Row(str(name), ProcessState(state), str(kind), float(started), float(ended))
                for name, state, kind, started, ended, *_ in value.get("rows", ())
            )
            return cls(
                str(GraphId.parse(value["processgraphid"])),
                GraphState(value["state"]),
                str(value["initiator"]),
                float(value["submitted_at"]),
                float(value["started_at"]),
                float(value["ended_at"]),
                str(value.get("reason", "")),
                rows,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SerializationError(f"A process graph is malformed: {error!r}.") from error


@dataclass(frozen=True, slots=True)
class Process:
    """One process, as it was when it was asked for. ``output`` is what it returned, ``attempt`` the number of the
    attempt that was given out last, ``executor`` the user who works on it, ``reason`` why it failed."""

    processid: str
    processgraphid: str
    name: str
    spec: FunctionSpec
    state: ProcessState
    output: Any = None
    attempt: int = 0
    reason: str = ""
    executor: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Process:
        """Check and build; raises SerializationError. Safe on data from other users."""
        try:
            found = ProcessId.parse(value["processid"])
            return cls(
                str(found),
                str(found.graph),
                found.name,
                read_spec(value["spec"]),
                ProcessState(value["state"]),
                restored(value.get("output")),
                int(value.get("attempt", 0)),
                str(value.get("reason", "")),
                str(value.get("executor", "")),
                float(value.get("started_at", 0.0)),
                float(value.get("ended_at", 0.0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise SerializationError(f"A process is malformed: {error!r}.") from error


def packed(output: Any) -> list[Any]:
    """An output as it is stored and sent: whether it is a tuple, and its value."""
    return [True, list(output)] if isinstance(output, tuple) else [False, output]


def is_packed(value: object) -> bool:
    """Whether ``packed`` may have made this. Safe on data from other users."""
    return isinstance(value, list) and len(value) == 2 and (value[0] is False or isinstance(value[1], list))


def restored(output: Any) -> Any:
    """What ``packed`` was given; None for None."""
    if output is None:
        return None
    several, value = output
    return tuple(value) if several else value
