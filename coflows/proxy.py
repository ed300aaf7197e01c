"""A mounted instance as its caller holds it: package a message, send it, await the reply."""

from __future__ import annotations

from typing import Any, Protocol

from coflows.broker.topology import Route, route_to
from coflows.errors import CoflowsError, SerializationError
from coflows.futures import FlowFuture
from coflows.model.address import InstanceAddress
from coflows.model.messages import FlowMessage


class CallPort(Protocol):
    """How a proxy's messages leave: a client's session, or the turn of the flow that holds the proxy."""

    def new_message_id(self, data: dict[str, Any]) -> str:
        """An id for a message to be packaged."""

    def send(self, route: Route, message: FlowMessage) -> None:
        """Send; nobody waits for a reply."""

    def push(self, route: Route, message: FlowMessage) -> None:
        """Send; the reply becomes a turn of the instance that asked."""

    def call(self, route: Route, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send; the future gets the reply. With ``confirm``, return once the message is durable."""


class FlowProxy:
    """An instance, its own user's or another's. Thread-safe; costs nothing until a message is sent."""

    def __init__(self, address: InstanceAddress, port: CallPort, *, in_order: bool = True) -> None:
        route = route_to(address)
        self._route = route if in_order else route._replace(ordered=None)
        self._port = port

    @property
    def address(self) -> InstanceAddress:
        """Where it lives."""
        return self._route.address

    @property
    def flow_endpoint(self) -> str:
        """The endpoint that it is an instance of."""
        return self.address.flow_endpoint

    @property
    def user_id(self) -> str:
        """The user whose flow it is."""
        return self.address.user_id

    def get_instance_id(self) -> str:
        """The instance's id."""
        return self.address.flow_id

    def package_input_message(self, data: dict[str, Any]) -> FlowMessage:
        """A new message with ``data``. Sending it twice is sending it once: its id says that it is the same."""
        return FlowMessage(data=data, message_id=self._port.new_message_id(data))

    def send_message(self, message: FlowMessage | dict[str, Any]) -> None:
        """Send a message (or a dict as one), and wait for no reply. Durable when it returns (inside a turn: when the
        turn is committed).

        Raises InstanceNotFoundError, SerializationError, MessageTooLargeError or BrokerUnavailableError; so do the
        methods below.
        """
        self._port.send(self._route, self._own(message))

    def get_reply(self, message: FlowMessage | dict[str, Any]) -> None:
        """Send; the reply comes as a new message to the flow that calls this, with ``input_message_id`` equal to
        ``message.message_id``. Only inside a flow's ``run``."""
        self._port.push(self._route, self._own(message))

    def get_reply_future(self, message: FlowMessage | dict[str, Any]) -> FlowFuture:
        """Send, and give a future of the reply. The message is durable when this returns."""
        return self._port.call(self._route, self._own(message), confirm=True)

    def ask(self, data: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send ``data`` and wait for the reply's data; ``timeout`` in seconds, None waits for as long as it takes."""
        return self.submit(data).get_data(timeout)

    async def ask_async(self, data: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """``ask`` for coroutines; many may wait at once."""
        import asyncio  # Only coroutines need it.

        future = self.submit(data)
        try:
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError as error:
            if isinstance(error, CoflowsError):
                raise
            raise future.expired(timeout) from None

    def submit(self, data: dict[str, Any]) -> FlowFuture:
        """Send ``data``, and give a future of the reply without waiting for anything: it fails when the message could
        not be made durable. For many calls at once; ``get_reply_future`` returns once the message is durable."""
        return self._port.call(self._route, self.package_input_message(data), confirm=False)

    def _own(self, message: FlowMessage | dict[str, Any]) -> FlowMessage:
        """A dict is packaged; a received message that is sent on is a new message with the same data."""
        if isinstance(message, dict):
            return self.package_input_message(message)
        if not isinstance(message, FlowMessage):
            raise SerializationError(
                f"A message is a dict or what package_input_message gave, not a {type(message).__name__}.",
                hint='Pass for instance {"number": 1}.',
            )
        if message.is_new:
            return message
        return self.package_input_message(message.data)

    def __repr__(self) -> str:
        return f"<FlowProxy {self.flow_endpoint} {self.get_instance_id()} of user {self.user_id[:8]}>"
