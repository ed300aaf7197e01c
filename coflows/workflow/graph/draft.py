"""The next graph while a step makes it: reads through to the graph before, and notes what changes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, TypeVar

from immutables import Map

from coflows.workflow.graph.commands import Command
from coflows.workflow.graph.process import Need, ProcessSpec, Status, child_name, parse_child, replaced
from coflows.workflow.graph.value import Delta, Dependent, Graph, Head

K = TypeVar("K")
V = TypeVar("V")


class Draft:
    """One step's changes and commands. Used once, by one thread."""

    def __init__(self, graph: Graph, at: float) -> None:
        self._graph = graph
        self._delta = Delta()
        self.head: Head = graph.head
        self.at = at
        self.commands: list[Command] = []
        self.ready: deque[str] = deque()
        """Processes that have all they need and were not looked at yet."""

    def knows(self, process: str) -> bool:
        """Whether there is such a process."""
        return process in self._delta.statuses or process in self._graph.statuses

    def status(self, process: str) -> Status:
        """Where a process is."""
        return self._delta.statuses.get(process) or self._graph.statuses[process]

    def set(self, process: str, /, **changes: Any) -> Status:
        """Change where a process is."""
        status = self._delta.statuses[process] = replaced(self.status(process), **changes)
        return status

    def spec(self, process: str) -> ProcessSpec:
        """What a process is."""
        group = parse_child(process)
        name = process if group is None else group[0]
        return self._delta.specs.get(name) or self._graph.specs[name]

    def add(self, spec: ProcessSpec) -> None:
        """A new process, without edges."""
        self._delta.specs[spec.name] = spec._replace(needs=())
        self._delta.statuses[spec.name] = Status(seq=self.head.next_seq)
        self.head = replaced(self.head, next_seq=self.head.next_seq + 1, open=self.head.open + 1)

    def grow(self, group: str, count: int) -> None:
        """The children of a group."""
        first = self.head.next_seq
        for index in range(count):
            self._delta.statuses[child_name(group, index)] = Status(seq=first + index)
        self.head = replaced(self.head, next_seq=first + count, open=self.head.open + count)

    def parents(self, process: str) -> Iterator[tuple[int, Need]]:
        """The edges to what a process needs, with their numbers, in order."""
        for number in range(self.status(process).needs):
            slot = (process, number)
            need = self._delta.needs[slot] if slot in self._delta.needs else self._graph.needs.get(slot)
            if need is not None:
                yield number, need

    def dependents(self, process: str) -> Iterator[tuple[int, Dependent]]:
        """The edges to what needs a process, with their numbers; a group's child is needed by the group."""
        group = parse_child(process)
        if group is not None:
            yield 0, Dependent(group[0])
            return
        changed = self._delta.dependents
        for number in range(self.status(process).dependents):
            slot = (process, number)
            one = changed[slot] if slot in changed else self._graph.dependents.get(slot)
            if one is not None:
                yield number, one

    def connect(self, child: str, need: Need) -> None:
        """A new edge; the child waits for it unless its parent is over."""
        below, above = self.status(child), self.status(need.process)
        self._delta.needs[child, below.needs] = need
        self._delta.dependents[need.process, above.dependents] = Dependent(child, need.required)
        self.set(child, needs=below.needs + 1, pending=below.pending + (not above.ended))
        self.set(need.process, dependents=above.dependents + 1)

    def disconnect(self, child: str, parent: str) -> bool:
        """Take the edge away; False when there is none."""
        slot = next(((child, number) for number, need in self.parents(child) if need.process == parent), None)
        if slot is None:
            return False
        self._delta.needs[slot] = None
        for number, dependent in self.dependents(parent):
            if dependent.process == child:
                self._delta.dependents[parent, number] = None
                break
        self.set(child, pending=self.status(child).pending - (not self.status(parent).ended))
        return True

    def finish(self) -> tuple[Graph, tuple[Command, ...]]:
        """The next graph, and what it asks for."""
        old, delta = self._graph, self._delta
        if self.head is not old.head:
            delta.head = self.head
        graph = Graph(
            head=self.head,
            specs=_updated(old.specs, delta.specs),
            statuses=_updated(old.statuses, delta.statuses),
            needs=_updated(old.needs, delta.needs),
            dependents=_updated(old.dependents, delta.dependents),
            delta=delta,
        )
        return graph, tuple(self.commands)


def _updated(table: Map[K, V], changes: dict[K, Any]) -> Map[K, V]:
    if not changes:
        return table
    draft = table.mutate()
    for key, value in changes.items():
        if value is not None:
            draft[key] = value
        elif key in draft:
            del draft[key]
    return draft.finish()
