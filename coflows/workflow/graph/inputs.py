"""Where the inputs of an attempt come from: outputs of parents, or single items of them."""

from __future__ import annotations

from typing import NamedTuple

from coflows.workflow.graph.process import parse_child
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.graph.value import Graph


class Input(NamedTuple):
    """One input: what a process gave, or with ``item`` that item of it. A group gives the list of what its children
    gave; when it is a foreach group, each of those is a list, and its items are theirs one after the other."""

    process: str
    item: int | None = None
    delivered: bool = True
    """Whether there is an output; None stands for it where there is none (skipped, or failed and not required)."""


def inputs_of(graph: Graph, process: str) -> list[Input]:
    """The inputs of a process whose parents are over, in the order of its needs."""
    child = parse_child(process)
    needs = list(graph.parents(process))
    parents = [graph.statuses[need.process] for need in needs]
    items: list[int | None] = [None] * len(needs)
    if child is not None:
        rest = child[1]
        for place in range(len(needs) - 1, -1, -1):
            size = parents[place].items
            if needs[place].each and size is not None:
                rest, items[place] = divmod(rest, size)
    return [
        Input(need.process, item, parent.state is ProcessState.SUCCESS)
        for need, item, parent in zip(needs, items, parents, strict=True)
    ]
