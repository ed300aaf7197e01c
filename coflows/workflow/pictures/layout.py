"""Where the nodes of a picture go: in layers, each behind all that it needs, ordered so that few edges cross."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise

from coflows.workflow.pictures.picture import Picture

SWEEPS = 6
"""How often the layers are put in order, forth and back: more makes no visible difference."""
MAX_BENDS = 5_000
"""In how many places edges may be led around nodes; beyond that nobody sees it."""
Links = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Layout:
    """``layers`` has nodes and bends in order; ``routes`` tells for each edge over which bends it goes from node to
    node. Names of bends begin with a NUL."""

    layers: list[list[str]]
    routes: list[list[str]]


def lay_out(picture: Picture) -> Layout:
    """About linear in nodes, edges and bends."""
    depth = _depths(picture)
    spans = sum(depth[edge.end] - depth[edge.start] - 1 for edge in picture.edges)
    layers: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for node in picture.nodes:
        layers[depth[node.name]].append(node.name)
    routes = []
    for number, edge in enumerate(picture.edges):
        between = range(depth[edge.start] + 1, depth[edge.end]) if spans <= MAX_BENDS else range(0)
        bends = [f"\0{number}:{layer}" for layer in between]
        for layer, bend in zip(between, bends, strict=True):
            layers[layer].append(bend)
        routes.append([edge.start, *bends, edge.end])
    _order(layers, routes)
    return Layout(layers, routes)


def _order(layers: list[list[str]], routes: list[list[str]]) -> None:
    """Each node between its neighbours of the layer before (going back: behind), again and again."""
    above: Links = defaultdict(list)
    below: Links = defaultdict(list)
    for route in routes:
        for start, end in pairwise(route):
            above[end].append(start)
            below[start].append(end)
    for sweep in range(SWEEPS):
        forth = sweep % 2 == 0
        neighbours = above if forth else below
        place: dict[str, float] = {}
        for layer in layers if forth else reversed(layers):
            size = len(layer)
            for index, name in enumerate(layer):
                beside = [place[other] for other in neighbours[name] if other in place]
                place[name] = sum(beside) / len(beside) if beside else (index + 0.5) / size
            layer.sort(key=place.__getitem__)
            # As a share of the layer's height: layers of different sizes are all centred.
            place.update((name, (index + 0.5) / size) for index, name in enumerate(layer))


def _depths(picture: Picture) -> dict[str, int]:
    waits = {node.name: 0 for node in picture.nodes}
    below: Links = defaultdict(list)
    for edge in picture.edges:
        waits[edge.end] += 1
        below[edge.start].append(edge.end)
    depth = {name: 0 for name, count in waits.items() if not count}
    ready = list(depth)
    for name in ready:
        for after in below[name]:
            depth[after] = max(depth.get(after, 0), depth[name] + 1)
            waits[after] -= 1
            if not waits[after]:
                ready.append(after)
    return depth
