"""One message being worked off by one instance: what the flow sends is gathered here until the turn is committed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from hashlib import blake2b
from typing import Any

from coflows.broker.topology import Route, reply_queue
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.dispatch.answers import answer_to, ordered_for
from coflows.dispatch.course import Course
from coflows.dispatch.records import Outgoing, PushCall
from coflows.dispatch.timers import Fired, timer_id, timer_keys
from coflows.dispatch.turn_port import TurnPort
from coflows.errors import CallCancelledError, FlowConfigError, MessageTooLargeError, SecretExposedError
from coflows.flows.private import strip_private
from coflows.futures import FlowFuture, Pause
from coflows.instances import Instance, find_instance, instance_keys
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call, Reply
from coflows.model.failure import Failure
from coflows.model.layout import call_key, record_key, records_prefix
from coflows.model.messages import FlowMessage, ReplyAddress, ReplyMode
from coflows.proxy import FlowProxy
from coflows.redaction import Redactor

MAX_SENT, MAX_SENT_BYTES = 20_000, 48 * 2**20
"""Messages that one turn may send, and bytes of them: all of it is in the record of the turn."""


class Turn:
    """The runtime that a flow sees while it works on one message.

    Ids of what is sent are derived from the message worked off, so that a turn that is run again (a worker died
    before the commit) sends the same messages under the same ids, and receivers apply them once. Used by the one
    thread that runs the flow.
    """

    __slots__ = (
        "_bytes",
        "_cancelled",
        "_cl",
        "_counter",
        "_course",
        "_futures",
        "_instance",
        "_private_keys",
        "abandoned",
        "calls",
        "deletes",
        "due",
        "message",
        "origin",
        "pause",
        "redactor",
        "resources",
        "secrets",
        "sent",
        "timers",
        "untracked",
    )

    def __init__(
        self,
        cl: Client,
        instance: Instance,
        message: FlowMessage,
        *,
        origin: ReplyAddress | None,
        secrets: Mapping[str, str],
        redactor: Redactor,
        resources: Mapping[str, Any],
        private_keys: tuple[str, ...],
        pause: Pause,
        course: Course,
    ) -> None:
        self.message = message
        self.origin = origin
        self.secrets = secrets
        self.redactor = redactor
        self.resources = resources
        self.sent: list[Outgoing] = []
        self.calls: dict[str, bytes] = {}
        self.timers: dict[str, bytes] = {}
        self.deletes: dict[str, None] = {}
        self.due: list[float] = []
        self.untracked = False
        self._cl = cl
        self._instance = instance
        self._course = course
        self._private_keys = private_keys
        self.pause = pause
        self._counter = 0
        self._futures: list[FlowFuture | Future[Any]] = []
        self._cancelled = False
        self._bytes = 0
        self.abandoned: Callable[[], None] | None = None
        """When it is over without its flow having come back: what to do once that does, whatever it brings."""

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
        """An id for a reply, from the input message and the number of what is sent: the same when the turn runs again.
        It leaves with the turn's commit, so that there is never another one under it."""
        return self._derive("")

    def new_call_id(self, data: Mapping[str, Any]) -> str:
        """``new_message_id`` for what may leave before the commit: from the data too, since a turn that runs again may
        ask something else, which must not get the answer to the first question."""
        return self._derive(repr(data))

    def _derive(self, data: str) -> str:
        self._counter += 1
        source = self.message.message_id
        text = f"{self._instance.address.flow_id}\0{source}\0{self._counter}\0{data}"
        # The same moment in front as in the input's id, for what that is good for.
        return source[:12] + blake2b(text.encode(errors="surrogatepass"), digest_size=10).hexdigest()

    def send(self, message: FlowMessage) -> None:
        """Send a reply, when the turn is committed; nothing happens when nobody waits for it."""
        if message.reply_to is not None:
            self._answer(message.reply_to, message=message)

    def send_later(self, seconds: float, data: dict[str, Any]) -> str:
        """A message of the instance to itself, when the turn is committed and so many seconds are over; gives the id by
        which it can be cancelled, which the message will have."""
        due = time.time() + max(seconds, 0.0)
        timer = timer_id(due, self._derive("timer"))
        in_order, own = timer_keys(self.address, timer)
        call = Call(self.flow_id, strip_private(data, self._private_keys), due, self.flow_id)
        self.check_hidden("a timer", self._cl.session.encode(call))  # What cannot be sent is told now.
        self.timers |= {in_order: Fired(call.data or {}, chain=self._course.timer()).encode(), own: b""}
        self.due.append(due)
        return timer

    def cancel_later(self, timer: str) -> None:
        """Take a timer back, with the commit of this turn; nothing happens when it was due before."""
        for key in timer_keys(self.address, timer):
            if self.timers.pop(key, None) is None:
                self.deletes[key] = None

    def read_records(self, names: Iterable[str]) -> dict[str, bytes]:
        """Those of the instance's records that are committed under these names."""
        keys = {record_key(self.flow_id, name): name for name in names}
        return {keys[key]: entry.value for key, entry in self._cl.store.get_many(keys).items()}

    def scan_records(self, prefix: str) -> dict[str, bytes]:
        """The instance's committed records whose names begin so."""
        start = records_prefix(self.flow_id)
        return {entry.key.removeprefix(start): entry.value for entry in self._cl.store.scan(f"{start}{prefix}")}

    def leave_no_record(self) -> None:
        """The turn may be run again, with the same outcome: its message need not be remembered. Without effect when it
        sends more than replies."""
        self.untracked = True

    def delete_instance(self, flow_id: str) -> None:
        """Delete another instance of this user's, with the commit of this turn; its subflows stay."""
        instance = find_instance(self._cl.store, flow_id)
        if instance is not None:
            self.deletes |= dict.fromkeys(instance_keys(self._cl.store, instance))

    def instance(self, address: InstanceAddress) -> FlowProxy:
        """The proxy of any instance whose address the flow knows. What is sent to it is in no order, and so waits for
        nothing that was sent before and is never refused for being late."""
        return FlowProxy(address, TurnPort(self), in_order=False)

    def subflow(self, key: str) -> FlowProxy:
        """The proxy of a subflow."""
        try:
            return FlowProxy(self._instance.subflows[key], TurnPort(self))
        except KeyError:
            raise FlowConfigError(
                f"{self.endpoint} has no subflow {key!r}.", hint=f"It has: {', '.join(self._instance.subflows)}."
            ) from None

    # -- for the proxies of its subflows -----------------------------------------------------------------------

    def call(self, route: Route, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send now; waiting for the future lets other turns run."""
        self.check_cancelled()
        message = self._without_private(message)
        if self.redactor:
            self.check_hidden("a message", encode(message.data))
        chain = self._course.call(route.address, message)
        future = self._cl.call(
            route, message, confirm=confirm, src_flow_id=self.flow_id, pause=self._waits, chain=chain
        )
        self._futures.append(future)
        return future

    def post(self, route: Route, message: FlowMessage, *, push: bool) -> None:
        """Send when the turn is committed; with ``push`` the reply becomes a turn of this instance."""
        message = self._without_private(message)
        own = self._instance.address
        reply: dict[str, Any] | None = None
        if push:
            reply = {"mode": str(ReplyMode.PUSH), "flow_id": own.flow_id, "dispatch_point": own.dispatch_point}
            reply["partition"] = own.partition
        chain = self._course.call(route.address, message)
        call = Call(route.address.flow_id, message.data, message.created_at, self.flow_id, reply, chain=chain)
        recipient = route.address.user_id
        self._add(route.queue, recipient, message.message_id, None, call, route.ordered)
        if push:
            self.calls[call_key(self.flow_id, message.message_id)] = PushCall(
                recipient, self.origin, chain=self._course.reply()
            ).encode()

    def _without_private(self, message: FlowMessage) -> FlowMessage:
        if not self._private_keys:
            return message
        return replace(message, data=strip_private(message.data, self._private_keys))

    @contextmanager
    def _waits(self) -> Iterator[None]:
        self.check_cancelled()
        with self.pause():
            yield

    # -- for the runner ----------------------------------------------------------------------------------------

    @property
    def sent_bytes(self) -> int:
        """Bytes of what it sends when it is committed."""
        return self._bytes

    def ends_with(self, running: Future[Any]) -> None:
        """What runs elsewhere for this turn is cancelled when the turn is."""
        self._futures.append(running)
        if self._cancelled:
            running.cancel()

    def over(self) -> None:
        """Its flow is done with it. What it waited for and the batch that it was part of refer to it, and would keep it
        with its message until garbage is collected."""
        self._futures = []
        self.pause = nullcontext

    def cancel(self) -> None:
        """The sender no longer wants it: whatever the turn waits for ends, and so does the turn at its next call."""
        self._cancelled = True
        for future in self._futures:
            future.cancel()

    def check_cancelled(self) -> None:
        """Raise CallCancelledError when the turn was cancelled."""
        if self._cancelled:
            raise CallCancelledError("The message was cancelled by its sender.")

    def check_hidden(self, where: str, data: bytes | None) -> None:
        """Raise SecretExposedError when one of the worker's secrets is in what is about to be kept or sent."""
        name = self.redactor.found_in(data) if self.redactor and data is not None else None
        if name is not None:
            raise SecretExposedError(
                f"The secret {name} would leave {self.endpoint} in {where}.",
                hint="Secrets are never kept or sent: read self.secrets where the value is used.",
            )

    def anew(self) -> Turn:
        """The same turn, of which nothing has happened yet."""
        return Turn(
            self._cl,
            self._instance,
            self.message,
            origin=self.origin,
            secrets=self.secrets,
            resources=self.resources,
            private_keys=self._private_keys,
            pause=self.pause,
            course=self._course,
            redactor=self.redactor,
        )

    def fail(self, failure: Failure) -> None:
        """Drop all that was to be sent, and tell who waits for the outcome of this turn why there is none."""
        self.sent.clear()
        self._bytes = 0
        self.calls.clear()
        self.timers.clear()
        self.deletes.clear()
        self.due.clear()
        if self.origin is not None:
            own = self.origin.user_id == self._cl.user_id
            self._answer(self.origin, failure=failure if own else failure.for_others())

    def _answer(
        self, reply_to: ReplyAddress, *, message: FlowMessage | None = None, failure: Failure | None = None
    ) -> None:
        message_id = message.message_id if message else self.new_message_id({})
        payload = answer_to(reply_to, message_id, self.flow_id, message, failure)
        # Turns of a parallel endpoint run beside each other: their replies are in no order that could be kept.
        ordered = None if self._instance.address.partition is None else ordered_for(reply_to)
        self._add(reply_queue(reply_to), reply_to.user_id, message_id, reply_to.message_id, payload, ordered)

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
        self.check_hidden("a message", data)
        if len(self.sent) >= MAX_SENT or self._bytes + len(data) > MAX_SENT_BYTES:
            raise MessageTooLargeError(
                f"A turn sends at most {MAX_SENT} messages of {MAX_SENT_BYTES} bytes together.",
                hint="Send the rest from another turn.",
            )
        self._bytes += len(data)
        self.sent.append(Outgoing(queue, recipient, message_id, answers, data, ordered))
