"""A flow as services list it: what its entry says, and the record of the node that offers it."""

from __future__ import annotations

from typing import Any

from coflows.registry.entry import FlowEntry, page_of

Item = dict[str, Any]


def item_of(
    flow_id: str, entry: FlowEntry, organization: str, node: str, user_id: str, broker: str | None, status: str
) -> Item:
    """The item of docs/registry.md."""
    return {
        "id": flow_id,
        "name": entry.name,
        "organization": organization,
        "description": entry.description,
        "author": entry.author,
        "tags": entry.tags,
        "url": entry.url or page_of(node, flow_id),
        "node": node,
        "user_id": user_id,
        "flow_endpoint": entry.flow_endpoint,
        "broker": broker,
        "status": status,
        "input_schema": entry.input_schema,
        "output_schema": entry.output_schema,
    }
