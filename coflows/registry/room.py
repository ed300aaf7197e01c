"""Makes room for the record of a node where a service has as many nodes, or bytes, as it may."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from coflows.errors import AccessDeniedError
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.options import Options
from coflows.registry.sharing import gives_way


class Room:
    """What is written takes the connection of a transaction."""

    def __init__(self, nodes: Nodes, options: Options) -> None:
        self._nodes = nodes
        self._options = options

    def make(self, db: sqlite3.Connection, claim: Claim, new: bool) -> None:
        """Let go of nodes of others, the newest first, where a record has no room. Raises AccessDeniedError."""
        most = self._options.max_nodes
        while new and self._nodes.count(db=db) >= most:
            self._let_go(db, claim, self._nodes.held(db, "count(*)"), 1, f"{most} nodes")
        most = self._options.max_bytes
        while (more := self._nodes.grows(db, claim)) > 0:
            held = self._nodes.held(db, "sum(bytes)")
            if sum(held.values()) + more <= most:
                break
            self._let_go(db, claim, held, more, f"{most} bytes")

    def _let_go(self, db: sqlite3.Connection, claim: Claim, held: Mapping[str, int], more: int, most: str) -> None:
        place = gives_way(held, claim.place, more)
        if place is None or not self._nodes.evict(db, place, claim.beat.user_id, claim.beat.url):
            raise AccessDeniedError(
                f"There are {most} already; {claim.beat.url} is not taken.", hint="Connect to another registry."
            )
