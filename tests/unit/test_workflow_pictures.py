"""Pictures of graphs: their text, their layout, their colours."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from coflows.workflow import Configuration, FlowSpec, foreach, join, needs, optional, step
from coflows.workflow.graph import Graph
from coflows.workflow.graph import step as graph_step
from coflows.workflow.graph.events import Submitted
from coflows.workflow.graph.process import Need, ProcessSpec
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.pictures.colours import COLOURS
from coflows.workflow.pictures.layout import lay_out
from coflows.workflow.pictures.mermaid import to_mermaid
from coflows.workflow.pictures.picture import Picture, PictureEdge, PictureNode, picture_of
from coflows.workflow.pictures.svg import to_svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


class Shop(FlowSpec):
    @foreach()
    @step
    def orders():
        """Reads <the> orders."""
        return [1, 2, 0]

    @needs(predecessors=[orders])
    @step
    def price(order):
        return 6 / order

    @needs()
    @optional(condition=lambda: False)
    @step
    def advert(): ...

    @join()
    @needs(predecessors=[price], optional=[advert])
    @step
    def bill(prices):
        return sum(prices)


def run_shop() -> Shop:
    flow = Shop("shop", conf=Configuration(thread_count=1))
    try:
        flow.run()
    except RuntimeError:
        return flow
    raise AssertionError


def test_mermaid() -> None:
    assert run_shop().graph.to_mermaid() == (
        "flowchart LR\n"
        '    n0("orders"):::SUCCESS\n'
        '    n1("price \N{MULTIPLICATION SIGN}3"):::FAILED\n'
        '    n2("advert"):::SKIPPED\n'
        '    n3("bill"):::UPSTREAM_FAILED\n'
        '    n0 -->|"foreach"| n1\n'
        '    n1 -->|"join"| n3\n'
        '    n2 -.->|"join"| n3\n'
        "    classDef FAILED fill:#fee2e2,stroke:#dc2626,color:#7f1d1d\n"
        "    classDef SKIPPED fill:#ffffff,stroke:#cbd5e1,color:#94a3b8\n"
        "    classDef SUCCESS fill:#dcfce7,stroke:#16a34a,color:#14532d\n"
        "    classDef UPSTREAM_FAILED fill:#ffedd5,stroke:#ea580c,color:#7c2d12\n"
    )


def test_mermaid_text_cannot_break_out() -> None:
    picture = Picture([PictureNode("a", 'x"):::y\n%%', ProcessState.WAITING)], [])
    assert to_mermaid(picture).splitlines()[1] == '    n0("x#34;)#58;#58;#58;y#10;#37;#37;"):::WAITING'


def test_svg() -> None:
    flow = run_shop()
    image = ET.fromstring(flow.graph.to_svg())
    boxes = image.findall(f"{NAMESPACE}g/{NAMESPACE}rect")
    fills = [COLOURS[step.state].fill for step in flow.graph.steps]
    assert [box.get("fill") for box in boxes] == fills
    titles = [title.text for title in image.findall(f"{NAMESPACE}g/{NAMESPACE}title")]
    assert titles[0] == "orders: SUCCESS\nReads <the> orders."
    assert len(image.findall(f"{NAMESPACE}path")) == 3
    assert "http" not in flow.graph.to_svg().replace("http://www.w3.org/2000/svg", "")
    assert flow._repr_html_() == flow.graph._repr_html_() == f"<div>{flow.graph.to_svg()}</div>"


def test_to_dict() -> None:
    value = run_shop().graph.to_dict()
    assert value["name"] == "shop"
    assert value["steps"][3] == {
        "id": "bill",
        "docs": None,
        "state": "UPSTREAM_FAILED",
        "predecessors": ["price", "advert"],
        "flow_endpoint": None,
    }
    nodes = {node["id"]: node for node in value["nodes"]}
    assert list(nodes) == ["orders_0", "price_0", "price_1", "price_2", "advert_0", "bill_0"]
    assert nodes["price_2"]["error"] == "division by zero" and nodes["price_2"]["predecessor_ids"] == ["orders_0"]
    assert nodes["bill_0"]["predecessor_ids"] == ["price_0", "price_1", "price_2", "advert_0"]


def test_any_graph_has_a_picture() -> None:
    specs = (ProcessSpec("a"), ProcessSpec("b", (Need("a", required=False),)))
    graph, _ = graph_step(Graph(), Submitted(specs))
    picture = picture_of(graph)
    assert [node.label for node in picture.nodes] == ["a", "b"]
    assert picture.edges == [PictureEdge("a", "b", dashed=True)]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=40))
def test_the_layout_of_any_graph(pairs: list[tuple[int, int]]) -> None:
    """Every node has one place, every edge goes on from layer to layer, and boxes do not overlap."""
    nodes = [PictureNode(f"p{number}", f"p{number}", ProcessState.WAITING) for number in range(16)]
    edges = [PictureEdge(f"p{min(pair)}", f"p{max(pair)}") for pair in sorted(set(pairs)) if pair[0] != pair[1]]
    layout = lay_out(Picture(nodes, edges))
    place = {name: number for number, layer in enumerate(layout.layers) for name in layer}
    assert sorted(name for name in place if name[0] != "\0") == sorted(node.name for node in nodes)
    assert len(place) == sum(map(len, layout.layers))
    for route in layout.routes:
        assert all(place[end] - place[start] == 1 for start, end in pairwise(route))
    image = ET.fromstring(to_svg(Picture(nodes, edges)))
    spots = [(box.get("x"), box.get("y")) for box in image.findall(f"{NAMESPACE}g/{NAMESPACE}rect")]
    assert len(set(spots)) == 16
