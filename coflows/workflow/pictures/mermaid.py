"""A graph as a Mermaid diagram."""

from __future__ import annotations

from coflows.workflow.pictures.colours import COLOURS
from coflows.workflow.pictures.picture import Picture, PictureEdge

PLAIN = frozenset(" _-.,()+\N{MULTIPLICATION SIGN}")


def to_mermaid(picture: Picture) -> str:
    """The text of a flowchart from left to right, its nodes coloured by state."""
    numbers = {node.name: f"n{number}" for number, node in enumerate(picture.nodes)}
    lines = ["flowchart LR"]
    lines += [f'    {numbers[node.name]}("{_text(node.label)}"):::{node.state}' for node in picture.nodes]
    lines += [f"    {numbers[edge.start]} {_arrow(edge)} {numbers[edge.end]}" for edge in picture.edges]
    for state in sorted({node.state for node in picture.nodes}):
        colour = COLOURS[state]
        lines.append(f"    classDef {state} fill:{colour.fill},stroke:{colour.line},color:{colour.text}")
    return "\n".join(lines) + "\n"


def _arrow(edge: PictureEdge) -> str:
    arrow = "-.->" if edge.dashed else "-->"
    return f'{arrow}|"{_text(edge.label)}"|' if edge.label else arrow


def _text(label: str) -> str:
    """Mermaid reads entities with # for &; everything that could end the text becomes one."""
    return "".join(one if one.isalnum() or one in PLAIN else f"#{ord(one)};" for one in label)
