"""One message being worked off by one instance: what the flow sends is gathered here until the turn is committed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

from coflows.broker.topology import instance_queue, reply_queue
from coflows.client import Client, outgoing
from coflows.dispatch.answers import ordered_for
from coflows.dispatch.records import Outgoing, PushCall
from coflows.errors import CallCancelledError, FlowConfigError
from coflows.flows.private import strip_private
from coflows.futures import FlowFuture
from coflows.instances import Instance
from coflows.model.address import InstanceAddress
from coflows.model.failure import Failure
from coflows.model.layout import call_key
from coflows.model.messages import FlowMessage, ReplyAddress, ReplyMode
from coflows.model.wire import Call, Reply
from coflows.proxy import FlowProxy


class Turn:
    """The runtime that a flow sees while it works on one message.

    Ids of what is sent are derived from the message worked off, so that a turn that is run again (a worker died
    before the commit) sends the same messages under the same ids, and receivers apply them once. Used by the one
    thread that runs the flow.
    """

    def __init__(
        self,
        cl: Client,
        instance: Instance,
        message: FlowMessage,
        *,
        origin: ReplyAddress | None,
        secrets: Mapping[str, str],
        private_keys: Sequence[str] = (),
        pause: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self.message = message
        self.origin = origin
        self.secrets = secrets
        self.sent: list[Outgoing] = []
        self.calls: dict[str, bytes] = {}
        self._cl = cl
        self._instance = instance
        self._private_keys = tuple(private_keys)
        self._pause = pause
        self._counter = 0
        self._futures: list[FlowFuture] = []
        self._cancelled = False

    # -- for the flow (FlowRuntime) ----------------------------------------------------------------------------

    @property
    def flow_id(self) -> str:
        """The instance's id."""
        return self._instance.address.flow_id

    @property
    def address(self) -> InstanceAddress:
        """Where the instance gets its messages."""
        return self._instance.address

    @property
    def endpoint(self) -> str:
        """The endpoint it is an instance of."""
        return self._instance.path.endpoint

    @property
    def user_id(self) -> str:
        """The user whose flow it is."""
        return self._cl.user_id

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this turn: give it to services outside, which may be called more than once."""
        return f"{self.flow_id}.{self.message.message_id}"

    def new_message_id(self, data: Mapping[str, Any]) -> str:
        """An id from the input message, the number of the call, and the data: the same when the turn runs again."""
        self._counter += 1
        text = f"{self.flow_id}\0{self.message.message_id}\0{self._counter}\0{data!r}"
        return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()

    def send(self, message: FlowMessage) -> None:
        """Send a reply, when the turn is committed; nothing happens when nobody waits for it."""
        if message.reply_to is not None:
            self._answer(message.reply_to, message=message)

    def subflow(self, key: str) -> FlowProxy:
        """The proxy of a subflow."""
        try:
            return FlowProxy(self._instance.subflows[key], TurnPort(self))
        except KeyError:
            raise FlowConfigError(
                f"{self.endpoint} has no subflow {key!r}.", hint=f"It has: {', '.join(self._instance.subflows)}."
            ) from None

    # -- for the proxies of its subflows -----------------------------------------------------------------------

    def call(self, address: InstanceAddress, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send now; waiting for the future lets other turns run."""
        self.check_cancelled()
        message = self._without_private(message)
        future = self._cl.call(address, message, confirm=confirm, src_flow_id=self.flow_id, pause=self._waits)
        self._futures.append(future)
        return future

    def post(self, address: InstanceAddress, message: FlowMessage, *, push: bool) -> None:
        """Send when the turn is committed; with ``push`` the reply becomes a turn of this instance."""
        message = self._without_private(message)
        own = self._instance.address
        reply_to = ReplyAddress(
            ReplyMode.PUSH,
            self._cl.user_id,
            message.message_id,
            flow_id=own.flow_id,
            dispatch_point=own.dispatch_point,
            partition=own.partition,
        )
        call = Call.made(
            flow_id=address.flow_id,
            message=outgoing(message, self.flow_id),
            reply=reply_to.to_dict() if push else None,
        )
        ordered = None if address.partition is None else address.flow_id
        self._add(instance_queue(address), address.user_id, message.message_id, None, call, ordered)
        if push:
            record = PushCall(address.user_id, self.origin)
            self.calls[call_key(self.flow_id, message.message_id)] = record.encode()

    def _without_private(self, message: FlowMessage) -> FlowMessage:
        return replace(message, data=strip_private(message.data, self._private_keys))

    @contextmanager
    def _waits(self) -> Iterator[None]:
        self.check_cancelled()
        with self._pause():
            yield

    # -- for the runner ----------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """The sender no longer wants it: whatever the turn waits for ends, and so does the turn at its next call."""
        self._cancelled = True
        for future in self._futures:
            future.cancel()

    def check_cancelled(self) -> None:
        """Raise CallCancelledError when the turn was cancelled."""
        if self._cancelled:
            raise CallCancelledError("The message was cancelled by its sender.")

    def fail(self, failure: Failure) -> None:
        """Drop all that was to be sent, and tell who waits for the outcome of this turn why there is none."""
        self.sent.clear()
        self.calls.clear()
        if self.origin is not None:
            own = self.origin.user_id == self._cl.user_id
            self._answer(self.origin, failure=failure if own else failure.for_others())

    def _answer(
        self, reply_to: ReplyAddress, *, message: FlowMessage | None = None, failure: Failure | None = None
    ) -> None:
        answers = reply_to.message_id
        body = None
        if message is not None:
            body = {**outgoing(message, self.flow_id), "input_message_id": answers}
        problem = failure.to_dict() if failure else None
        message_id = message.message_id if message else self.new_message_id({"failure": answers})
        payload: Reply | Call
        if reply_to.mode is ReplyMode.PUSH:
            assert reply_to.flow_id is not None
            payload = Call.made(flow_id=reply_to.flow_id, message=body, answers=answers, failure=problem)
        else:
            payload = Reply.made(answers=answers, message=body, failure=problem)
        self._add(reply_queue(reply_to), reply_to.user_id, message_id, answers, payload, ordered_for(reply_to))

    def _add(
        self,
        queue: str,
        recipient: str,
        message_id: str,
        answers: str | None,
        payload: Call | Reply,
        ordered: str | None,
    ) -> None:
        data = self._cl.session.encode(payload)
        self.sent.append(Outgoing(queue, recipient, message_id, answers, data, ordered))


class TurnPort:
    """How the messages of a flow's subflow proxies leave: with the turn (CallPort)."""

    def __init__(self, turn: Turn) -> None:
        self._turn = turn

    def new_message_id(self, data: dict[str, Any]) -> str:
        """An id that is the same when the turn runs again."""
        return self._turn.new_message_id(data)

    def send(self, address: InstanceAddress, message: FlowMessage) -> None:
        """Send when the turn is committed; nobody waits for a reply."""
        self._turn.post(address, message, push=False)

    def push(self, address: InstanceAddress, message: FlowMessage) -> None:
        """Send when the turn is committed; the reply becomes a turn of this instance."""
        self._turn.post(address, message, push=True)

    def call(self, address: InstanceAddress, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send now."""
        return self._turn.call(address, message, confirm=confirm)
