"""The values that processes of a run gave, and the inputs made of them."""

from __future__ import annotations

from typing import Any

from coflows.workflow.graph.inputs import Input, inputs_of
from coflows.workflow.graph.value import Graph


class Outputs:
    """Outputs by process. Writing and reading different processes is safe from several threads."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._gathered: dict[str, list[Any]] = {}

    def __setitem__(self, process: str, value: Any) -> None:
        self._values[process] = value

    def get(self, process: str) -> Any:
        """What a process gave, None when it gave nothing."""
        return self._values.get(process)

    def of_group(self, graph: Graph, group: str) -> list[Any]:
        """What the children of a group gave, in order."""
        return [self._values.get(child) for child in graph.children(group)]

    def arguments(self, graph: Graph, process: str) -> list[Any]:
        """The inputs of a process, in the order of its needs."""
        return [self._value(graph, one) for one in inputs_of(graph, process)]

    def _value(self, graph: Graph, one: Input) -> Any:
        if not one.delivered:
            return None
        spec = graph.specs[one.process]
        if not spec.group:
            value = self._values[one.process]
            return value if one.item is None else value[one.item]
        gathered = self._gathered.get(one.process)
        if gathered is None:
            # Once, not for each child of the next group. Two threads at once gather the same.
            gathered = self.of_group(graph, one.process)
            if spec.foreach:
                gathered = [item for value in gathered for item in value]
            self._gathered[one.process] = gathered
        return gathered if one.item is None else gathered[one.item]
