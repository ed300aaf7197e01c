"""How the messages of a flow's subflow proxies leave: with its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coflows.broker.topology import Route
from coflows.futures import FlowFuture
from coflows.model.messages import FlowMessage

if TYPE_CHECKING:
    from coflows.dispatch.turn import Turn


class TurnPort:
    """See CallPort."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def new_message_id(self, data: dict[str, Any]) -> str:
        """An id that is the same when the turn runs again and asks the same."""
        return self._turn.new_call_id(data)

    def send(self, route: Route, message: FlowMessage) -> None:
        """Send when the turn is committed; nobody waits for a reply."""
        self._turn.post(route, message, push=False)

    def push(self, route: Route, message: FlowMessage) -> None:
        """Send when the turn is committed; the reply becomes a turn of this instance."""
        self._turn.post(route, message, push=True)

    def call(self, route: Route, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send now."""
        return self._turn.call(route, message, confirm=confirm)
