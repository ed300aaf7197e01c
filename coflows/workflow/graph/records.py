"""A graph as records for a store: keys and plain values, so that a step writes what it changed and nothing else.

h                      the head
p:{process}            what a process is
s:{process}            where it is
n:{process}:{number}   an edge to a parent
d:{process}:{number}   an edge to a child
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from immutables import Map

from coflows.errors import SerializationError
from coflows.workflow.graph.process import Need, Policy, ProcessSpec, Status
from coflows.workflow.graph.states import Awaits, GraphState, ProcessState
from coflows.workflow.graph.value import Delta, Dependent, Graph, Head

Record = list[Any]


def changes(delta: Delta) -> dict[str, Record | None]:
    """What to write after a step; None is to be deleted. Values are lists of str, int, float, bool and None."""
    records: dict[str, Record | None] = {}
    if delta.head is not None:
        records["h"] = list(delta.head)
    for name, spec in delta.specs.items():
        records[f"p:{name}"] = [spec.name, [], list(spec.policy), *spec[3:]]
    for name, status in delta.statuses.items():
        records[f"s:{name}"] = list(status)
    for (name, number), need in delta.needs.items():
        records[f"n:{name}:{number}"] = None if need is None else list(need)
    for (name, number), dependent in delta.dependents.items():
        records[f"d:{name}:{number}"] = None if dependent is None else list(dependent)
    return records


def save(graph: Graph) -> dict[str, Record]:
    """The whole graph."""
    whole = Delta(graph.head, dict(graph.specs), dict(graph.statuses), dict(graph.needs), dict(graph.dependents))
    return {key: record for key, record in changes(whole).items() if record is not None}


def load(records: Mapping[str, Record] | Iterable[tuple[str, Record]]) -> Graph:
    """The graph that was saved, or whose changes were written over each other. Raises SerializationError."""
    head = Head()
    specs: dict[str, ProcessSpec] = {}
    statuses: dict[str, Status] = {}
    needs: dict[tuple[str, int], Need] = {}
    dependents: dict[tuple[str, int], Dependent] = {}
    try:
        for key, record in dict(records).items():
            table, _, name = key.partition(":")
            if table == "h":
                head = Head(GraphState(record[0]), *record[1:])
            elif table == "p":
                specs[name] = ProcessSpec(record[0], (), Policy(*record[2]), *record[3:])
            elif table == "s":
                seq, state, awaits, *rest = record
                statuses[name] = Status(seq, ProcessState(state), Awaits(awaits), *rest)
            else:
                process, _, number = name.rpartition(":")
                if table == "n":
                    needs[process, int(number)] = Need(*record)
                else:
                    dependents[process, int(number)] = Dependent(*record)
    except (ValueError, TypeError, IndexError) as error:
        raise SerializationError(f"The records of a workflow are malformed: {error}.") from error
    return Graph(head, Map(specs), Map(statuses), Map(needs), Map(dependents))
