"""What the processes of a run gave, as inputs of others: whole, item by item, or gathered."""

from __future__ import annotations

from typing import Any

from coflows.flows.records import Records
from coflows.workflow.colonies.process_graph import restored
from coflows.workflow.graph import Graph, inputs_of
from coflows.workflow.graph.inputs import Input
from coflows.workflow.graph.process import parse_child

NOTHING = [False, None]


class RunOutputs:
    """Reads the outputs among a run's records. Inputs are as ``packed`` makes them. Not thread-safe."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._gathered: dict[str, list[Any]] = {}

    def inputs(self, graph: Graph, name: str) -> list[list[Any]]:
        """The inputs of a process whose parents are over, in the order of its needs."""
        expansion = self.spec(name).get("expansion") or {}
        if expansion.get("blind"):
            return []
        needed = [one for one in inputs_of(graph, name) if one.process != expansion.get("condition")]
        single = [f"o:{one.process}" for one in needed if not graph.specs[one.process].group]
        outputs = self._records.get_many(single)
        return [self._input(graph, one, outputs.get(f"o:{one.process}", NOTHING)) for one in needed]

    def spec(self, name: str) -> dict[str, Any]:
        """The function spec of a process, for a group's child that of its group."""
        child = parse_child(name)
        found: dict[str, Any] = self._records.get(f"f:{name if child is None else child[0]}")
        return found

    def output(self, name: str) -> Any:
        """What a process gave; None when it gave nothing."""
        return restored(self._records.get(f"o:{name}"))

    def _input(self, graph: Graph, one: Input, output: list[Any]) -> list[Any]:
        if not one.delivered:
            return NOTHING
        if graph.specs[one.process].group:
            items = self._of_group(graph, one.process)
            return [False, items if one.item is None else items[one.item]]
        return output if one.item is None else [False, output[1][one.item]]

    def _of_group(self, graph: Graph, group: str) -> list[Any]:
        gathered = self._gathered.get(group)
        if gathered is None:
            names = graph.children(group)
            found = self._records.get_many([f"o:{name}" for name in names])
            gathered = [restored(found.get(f"o:{name}")) for name in names]
            if graph.specs[group].foreach:
                gathered = [item for value in gathered for item in value]
            self._gathered[group] = gathered
        return gathered
