"""The graph as a value: what was submitted, where each process is, the edges, and what the last step changed.

It is made of persistent maps (HAMTs): a step makes a new graph that shares all but a few nodes with the old one, in
time and memory of about its own changes. The old graph stays whole. So a runner whose commit was refused goes on from
the graph it had, and what has to be written after a step is its ``delta``, not the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from immutables import Map

from coflows.workflow.graph.process import Need, ProcessSpec, Status, child_name, parse_child
from coflows.workflow.graph.states import GraphState

K = TypeVar("K")
V = TypeVar("V")
Slot = tuple[str, int]
"""A process, and the number of one of its edges."""


class Head(NamedTuple):
    """What there is once for the whole graph."""

    state: GraphState = GraphState.WAITING
    next_seq: int = 0
    open: int = 0
    """How many processes are not over."""
    failures: int = 0
    """How many failures nobody made up for: those of processes on which nothing depends."""
    blame: str = ""
    """The process that the first of those failures goes back to."""
    cancelled: bool = False
    max_step_inputs: int = 0
    max_needs: int = 0
    submitted_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0


class Dependent(NamedTuple):
    """An edge, as the parent sees it."""

    process: str
    required: bool = True


@dataclass(slots=True)
class Delta:
    """What a step changed; None in a table means that the entry is gone."""

    head: Head | None = None
    specs: dict[str, ProcessSpec] = field(default_factory=dict)
    statuses: dict[str, Status] = field(default_factory=dict)
    needs: dict[Slot, Need | None] = field(default_factory=dict)
    dependents: dict[Slot, Dependent | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A process graph. Immutable; ``step`` makes the next one. Equal when it is in the same place,
    however it got there."""

    head: Head = field(default_factory=Head)
    specs: Map[str, ProcessSpec] = field(default_factory=Map)
    """A group's children have none of their own."""
    statuses: Map[str, Status] = field(default_factory=Map)
    needs: Map[Slot, Need] = field(default_factory=Map)
    dependents: Map[Slot, Dependent] = field(default_factory=Map)
    delta: Delta = field(default_factory=Delta, repr=False)

    @property
    def state(self) -> GraphState:
        """Where the graph is."""
        return self.head.state

    def __contains__(self, process: str) -> bool:
        return process in self.statuses

    def __len__(self) -> int:
        return len(self.statuses)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Graph) and self._tables() == other._tables()

    __hash__ = None  # type: ignore[assignment]

    def _tables(self) -> tuple[object, ...]:
        return (self.head, self.specs, self.statuses, self.needs, self.dependents)

    def processes(self) -> list[str]:
        """All processes in the order in which they came; a group comes before its children."""
        return sorted(self.statuses, key=lambda name: self.statuses[name].seq)

    def spec(self, process: str) -> ProcessSpec:
        """What a process is; a group's child is what its group is, for one combination of its items."""
        group = parse_child(process)
        return self.specs[process] if group is None else self.specs[group[0]]

    def parents(self, process: str) -> Iterator[Need]:
        """What a process needs, in order; for a group's child what its group needs."""
        group = parse_child(process)
        name = process if group is None else group[0]
        for number in range(self.statuses[name].needs):
            need = self.needs.get((name, number))
            if need is not None:
                yield need

    def children(self, group: str) -> list[str]:
        """The children that a group has grown, in order; of any other process none."""
        return [child_name(group, index) for index in range(self.statuses[group].children)]
