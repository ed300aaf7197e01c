"""A graph as it is to be drawn, whatever draws it."""

from __future__ import annotations

from dataclasses import dataclass

from coflows.workflow.graph.states import ProcessState
from coflows.workflow.graph.value import Graph


@dataclass(frozen=True, slots=True)
class PictureNode:
    """One node; ``name`` is unique."""

    name: str
    label: str
    state: ProcessState
    title: str = ""


@dataclass(frozen=True, slots=True)
class PictureEdge:
    """One edge; ``dashed``: not required."""

    start: str
    end: str
    label: str = ""
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Picture:
    """Nodes and edges, without cycles."""

    nodes: list[PictureNode]
    edges: list[PictureEdge]


def picture_of(graph: Graph) -> Picture:
    """Any process graph: its processes, groups with how many children they have."""
    nodes, edges = [], []
    for name in graph.processes():
        if name not in graph.specs:
            continue
        status = graph.statuses[name]
        nodes.append(PictureNode(name, counted(name, status.children), status.state, status.reason))
        for need in graph.parents(name):
            edges.append(PictureEdge(need.process, name, "foreach" if need.each else "", dashed=not need.required))
    return Picture(nodes, edges)


def counted(name: str, count: int) -> str:
    """The label of a node that stands for several."""
    return f"{name} \N{MULTIPLICATION SIGN}{count}" if count else name
