"""The mount tree and the instances of a user, printed in colour."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from coflows.client import Client
from coflows.codec.state import decode_state
from coflows.endpoints import read
from coflows.errors import SerializationError
from coflows.instances import all_keys, instance_ids
from coflows.model.layout import FLOWS

SHOWN = 120


def flows_tree(cl: Client, print_values: bool = False) -> Tree:
    """The user's serve entries and mounts as a tree, for ``rich`` to print."""
    tree = Tree("flows", style="bold", guide_style="dim")
    branches: dict[tuple[str, ...], Tree] = {}
    for key in all_keys(cl.store, FLOWS):
        parts = tuple(key.split(":")[1:])
        branch = tree
        for depth in range(1, len(parts)):
            path = parts[:depth]
            if path not in branches:
                branches[path] = branch.add(Text(f"{parts[depth - 1]}/", style=_folder_style(depth)))
            branch = branches[path]
        leaf = Text(parts[-1], style="green")
        if print_values:
            leaf.append(f" = {_value(cl, key)}", style="default")
        branch.add(leaf)
    return tree


def print_served_flows(cl: Client, print_values: bool = False, console: Console | None = None) -> None:
    """Print the user's mount tree; with ``print_values`` also what each key holds."""
    (console or Console()).print(flows_tree(cl, print_values))


def print_flow_instances(cl: Client, print_values: bool = False, console: Console | None = None) -> None:
    """Print the ids of the user's instances; with ``print_values`` whose they are and at which endpoint."""
    console = console or Console()
    for flow_id in instance_ids(cl.store):
        line = Text(flow_id, style="cyan")
        if print_values:
            metadata = cl.read_entry(f"instance_metadata:{flow_id}") or {}
            line.append(f"  {metadata.get('flow_endpoint')}  {metadata.get('user_id')}", style="default")
        console.print(line)


def _folder_style(depth: int) -> str:
    return {1: "bold blue", 3: "magenta", 4: "cyan"}.get(depth, "blue")


def _value(cl: Client, key: str) -> str:
    entry = cl.store.get(key)
    if entry is None:
        return ""
    value: Any
    try:
        value = decode_state(entry.value) if key.endswith(":state") else read(entry.value)
    except (SerializationError, ValueError):
        value = entry.value
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
