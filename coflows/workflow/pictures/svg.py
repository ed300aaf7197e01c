"""A graph as an SVG image, made here: layers from left to right, a curve for each edge."""

from __future__ import annotations

from html import escape

from coflows.workflow.pictures.colours import COLOURS
from coflows.workflow.pictures.layout import Layout, lay_out
from coflows.workflow.pictures.picture import Picture, PictureEdge, PictureNode

HEIGHT = 34
BEND = 8
"""What a bend takes of its layer."""
GAP = 16
"""Between the nodes of a layer."""
ROOM = 70
"""Between layers, where the edges are."""
MARGIN = 12
LETTER = 7.4
"""How wide a letter is, about."""
MAX_LABEL = 28
Box = tuple[float, float, float]
"""Left end, middle of the height, right end."""


def to_svg(picture: Picture) -> str:
    """The image; its nodes are coloured by state, and each has its description as a tooltip."""
    nodes = {node.name: node for node in picture.nodes}
    layout = lay_out(picture)
    boxes, width, height = _place(layout, nodes)
    edges = zip(picture.edges, layout.routes, strict=True)
    return "".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
            f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="sans-serif" font-size="13">',
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 L8 4 L0 8 z" fill="#64748b"/></marker></defs>',
            *(_edge(edge, [boxes[name] for name in route]) for edge, route in edges),
            *(_node(node, boxes[name]) for name, node in nodes.items()),
            "</svg>",
        )
    )


def _place(layout: Layout, nodes: dict[str, PictureNode]) -> tuple[dict[str, Box], float, float]:
    sizes = [[HEIGHT if name in nodes else BEND for name in layer] for layer in layout.layers]
    heights = [sum(layer) + GAP * (len(layer) - 1) for layer in sizes]
    height = max(heights, default=0) + 2 * MARGIN
    boxes: dict[str, Box] = {}
    left: float = MARGIN
    for layer, layer_sizes, layer_height in zip(layout.layers, sizes, heights, strict=True):
        width = max((_width(nodes[name]) for name in layer if name in nodes), default=0)
        top = (height - layer_height) / 2
        for name, size in zip(layer, layer_sizes, strict=True):
            boxes[name] = (left, top + size / 2, left + width)
            top += size + GAP
        left += width + ROOM
    return boxes, max(left - ROOM, MARGIN) + MARGIN, height


def _label(node: PictureNode) -> str:
    return node.label if len(node.label) <= MAX_LABEL else f"{node.label[: MAX_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _width(node: PictureNode) -> float:
    return max(len(_label(node)) * LETTER + 24, 60)


def _node(node: PictureNode, box: Box) -> str:
    left, middle, right = box
    colour = COLOURS[node.state]
    dash = ' stroke-dasharray="4 3"' if node.state == "SKIPPED" else ""
    title = escape(f"{node.label}: {node.state}" + (f"\n{node.title.strip()}" if node.title else ""))
    return (
        f'<g><title>{title}</title><rect x="{left:.1f}" y="{middle - HEIGHT / 2:.1f}" width="{right - left:.1f}" '
        f'height="{HEIGHT}" rx="8" fill="{colour.fill}" stroke="{colour.line}" stroke-width="1.5"{dash}/>'
        f'<text x="{(left + right) / 2:.1f}" y="{middle + 4.5:.1f}" text-anchor="middle" '
        f'fill="{colour.text}">{escape(_label(node))}</text></g>'
    )


def _edge(edge: PictureEdge, boxes: list[Box]) -> str:
    """A curve from layer to layer, straight through the bends' layers."""
    x, y = boxes[0][2], boxes[0][1]
    path = [f"M{x:.1f} {y:.1f}"]
    for left, middle, right in boxes[1:]:
        bend = (left - x) / 2
        path.append(f"C{x + bend:.1f} {y:.1f} {left - bend:.1f} {middle:.1f} {left:.1f} {middle:.1f}")
        if (left, middle, right) != boxes[-1]:
            path.append(f"H{right:.1f}")
        x, y = right, middle
    dash = ' stroke-dasharray="5 4"' if edge.dashed else ""
    curve = (
        f'<path d="{" ".join(path)}" fill="none" stroke="#64748b" stroke-width="1.3"{dash} marker-end="url(#arrow)"/>'
    )
    if not edge.label:
        return curve
    middle_x, middle_y = (boxes[0][2] + boxes[1][0]) / 2, (boxes[0][1] + boxes[1][1]) / 2
    return (
        f'{curve}<text x="{middle_x:.1f}" y="{middle_y - 5:.1f}" text-anchor="middle" font-size="11" '
        f'fill="#64748b">{escape(edge.label)}</text>'
    )
