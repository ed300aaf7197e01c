"""What a flow needs of the worker that runs it; the dispatch worker implements it, a test may too."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, Protocol

from coflows.model.address import InstanceAddress
from coflows.model.messages import FlowMessage


class ReplyFuture(Protocol):
    """A reply to come; ``await future`` gives its data. Timeouts are in seconds, None waits for ever."""

    def get_data(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the reply and give its data."""

    def get_message(self, timeout: float | None = None) -> FlowMessage:
        """Wait for the reply."""

    def try_get_data(self) -> dict[str, Any] | None:
        """The reply's data, None while it is pending."""

    def try_get_message(self) -> FlowMessage | None:
        """The reply, None while it is pending."""

    def done(self) -> bool:
        """Whether waiting would return or raise at once."""

    def cancel(self) -> bool:
        """Stop waiting."""

    def __await__(self) -> Generator[Any, None, dict[str, Any]]: ...


class Subflow(Protocol):
    """A subflow as its composite calls it."""

    def package_input_message(self, data: dict[str, Any]) -> FlowMessage:
        """A new message with ``data``, ready to be sent."""

    def send_message(self, message: FlowMessage | dict[str, Any]) -> None:
        """Send, and wait for no reply."""

    def get_reply(self, message: FlowMessage | dict[str, Any]) -> None:
        """Send; the reply is a later turn, with ``input_message_id`` equal to ``message.message_id``."""

    def get_reply_future(self, message: FlowMessage | dict[str, Any]) -> ReplyFuture:
        """Send, and give a future of the reply."""

    def ask(self, data: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """Send ``data`` and wait for the reply's data."""

    async def ask_async(self, data: dict[str, Any], timeout: float | None = None) -> dict[str, Any]:
        """``ask`` for ``async def run``."""

    def submit(self, data: dict[str, Any]) -> ReplyFuture:
        """Send ``data``, and give a future of the reply."""

    def get_instance_id(self) -> str:
        """The instance's id."""


class FlowRuntime(Protocol):
    """One turn, as the flow that takes it sees it. Used by the one thread that runs the flow."""

    @property
    def flow_id(self) -> str:
        """The instance's id."""

    @property
    def endpoint(self) -> str:
        """The endpoint it is an instance of."""

    @property
    def user_id(self) -> str:
        """The user whose flow it is."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """What the worker was given with ``--secrets``."""

    @property
    def resources(self) -> Mapping[str, Any]:
        """What the program that runs the worker gave it for its flows."""

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this turn."""

    def new_message_id(self, data: dict[str, Any]) -> str:
        """An id for a message to be packaged."""

    def send(self, message: FlowMessage) -> None:
        """Send a reply to where ``message.reply_to`` says."""

    def send_later(self, seconds: float, data: dict[str, Any]) -> str:
        """Send the instance a message of its own after a while; gives an id."""

    def cancel_later(self, timer: str) -> None:
        """Take it back."""

    def read_records(self, names: Iterable[str]) -> dict[str, bytes]:
        """Committed records of the instance."""

    def scan_records(self, prefix: str) -> dict[str, bytes]:
        """Committed records of the instance whose names begin so."""

    def leave_no_record(self) -> None:
        """Its message need not be remembered."""

    def delete_instance(self, flow_id: str) -> None:
        """Delete another instance of the user's."""

    def instance(self, address: InstanceAddress) -> Subflow:
        """The proxy of an instance; what is sent to it is in no order."""

    def subflow(self, key: str) -> Subflow:
        """The proxy of a subflow of the config."""
