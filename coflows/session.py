"""One open session of a user: seals and publishes payloads, and gives arriving replies to those who wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, NamedTuple, Protocol

from coflows.broker.base import Broker, Consumer, Delivery
from coflows.broker.topology import Route, session_queue
from coflows.codec.wire import (
    ELEMENT_BYTES,
    MAX_DEPTH,
    check_sendable,
    check_size,
    decode_counted,
    encode,
)
from coflows.codec.wire import MAX_ITEMS as MAX_ELEMENTS
from coflows.errors import (
    BrokerError,
    BrokerUnavailableError,
    CoflowsError,
    KeyRetiredError,
    SerializationError,
    UnroutableError,
)
from coflows.identity.keyring import Keyring
from coflows.identity.keys import Identity
from coflows.identity.sealing import PARCEL, SINGLE, Item, Opened, open_envelope, open_retired, seal, seal_items
from coflows.key_news import news_for
from coflows.lines import MAX_BYTES, Done, Lines, Message, Place
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call, Reply
from coflows.model.messages import ReplyMode, new_message_id
from coflows.model.wire import Cancel, Recall
from coflows.refusals import Refusals
from coflows.waiting import PendingReply, Waiting

logger = logging.getLogger(__name__)

ENVELOPE_ALLOWANCE = 4_096
"""Bytes that an envelope and payload may add to a message of the largest size."""
ITEM_ALLOWANCE = 64
MAX_PARCEL_ELEMENTS = max(MAX_ELEMENTS, MAX_BYTES)
"""Of all messages in an envelope: of several together there are not more bytes than MAX_BYTES."""
REOPENED_FIRST_LOOK = 1.0


class Payload(Protocol):
    """What an envelope carries."""

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict."""


class Incoming(NamedTuple):
    """A message, opened: who sent it (proven), under which id, its decoded but unchecked value, and its place in the
    sender's order if it has one. ``data`` are the bytes of the value, ``until`` is how long it is valid (0: not
    known any more), ``elements`` how many the value has."""

    sender: str
    message_id: str
    value: Any
    data: bytes
    place: Place | None = None
    until: int = 0
    elements: int = 0

    @property
    def weight(self) -> int:
        """Bytes that it takes in memory, about."""
        return len(self.data) + ELEMENT_BYTES * self.elements


Unroutable = Callable[[InstanceAddress], CoflowsError]


class Session:
    """Thread-safe. The reply queue is declared when the first reply is expected."""

    def __init__(
        self,
        identity: Identity,
        broker: Broker,
        *,
        keyring: Keyring,
        max_message_bytes: int,
        ttl: float,
        envelope_version: int = PARCEL,
        has_begun: Callable[[str, str], bool] = lambda _flow_id, _message_id: False,
    ) -> None:
        """``has_begun``: whether this user works, or has worked, on the message of an instance."""
        self.id = new_message_id()
        self.user_id = identity.user_id
        self._identity = identity
        self._keyring = keyring
        self._has_begun = has_begun
        self._broker = broker
        self._max_bytes = max_message_bytes
        self._max_envelope = max(max_message_bytes, 2 * MAX_BYTES) + ENVELOPE_ALLOWANCE + 1024 * ITEM_ALLOWANCE
        self._ttl = ttl
        self._version = envelope_version
        self._lines = Lines(self._publish, gather=envelope_version != SINGLE)
        self._waiting = Waiting(self._ask, self._resend)
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self.reply_to = {"mode": str(ReplyMode.STORAGE), "session": self.id}
        """The address of replies to this session, as a call carries it."""
        self.closed = False
        self.refusals = Refusals()

    # -- out ---------------------------------------------------------------------------------------------------

    def encode(self, payload: Payload) -> bytes:
        """The bytes of a payload; raises SerializationError or MessageTooLargeError."""
        value = payload.to_dict()
        try:
            data = encode(value)
        except SerializationError as error:
            raise _by_its_author(payload, error) from None
        if isinstance(payload, Call | Reply) and payload.data:
            check_sendable(payload.data, MAX_DEPTH - 1)
        check_size(data, self._max_bytes)
        return data

    def send(
        self, queue: str, recipient: str, message_id: str, payload: Payload, *, ordered: str | None = None
    ) -> Future[None]:
        """Seal for ``recipient`` and publish. Raises SerializationError or MessageTooLargeError before anything is
        sent; the future resolves when the message is durable, or fails as ``Broker.publish_async`` says. ``ordered``:
        the instance whose messages are kept in order."""
        future: Future[None] = Future()
        self.post(queue, recipient, message_id, self.encode(payload), _into(future), ordered=ordered)
        return future

    def post(
        self,
        queue: str,
        recipient: str,
        message_id: str,
        data: bytes,
        done: Done,
        *,
        ordered: str | None = None,
        place: Place | None = None,
    ) -> Place | None:
        """``send`` of an encoded payload; see ``Lines.post``."""
        return self._lines.post(queue, recipient, message_id, data, done, ordered=ordered, place=place)

    def post_many(self, queue: str, recipient: str, messages: Sequence[Message], done: Done) -> None:
        """``post`` of several; see ``Lines.post_many``."""
        self._lines.post_many(queue, recipient, messages, done)

    def _publish(self, queue: str, recipient: str, items: Sequence[Item]) -> Future[None]:
        expiry = int(time.time() + self._ttl)
        way = self._keyring.way_to(recipient)
        if self._version == SINGLE and way is None:
            body = seal(self._identity, recipient, items[0].message_id, expiry, items[0].payload)
        else:
            body = seal_items(self._identity, recipient, expiry, items, way=way)
        return self._broker.publish_async(queue, body)

    # -- in ----------------------------------------------------------------------------------------------------

    def open(self, body: bytes) -> Opened:
        """Open what another user sealed; raises EnvelopeError. Who used a key that counts no more is told so."""
        try:
            return self.try_open(body)
        except KeyRetiredError:
            opened = open_retired(self._identity, body, time.time(), self._keyring)
            if opened is not None:
                self._tell_keys(opened)
            raise

    def try_open(self, body: bytes) -> Opened:
        """``open``, of which nobody is told."""
        return open_envelope(self._identity, body, time.time(), self._max_envelope, self._keyring)

    def _tell_keys(self, opened: Opened) -> None:
        for item in opened.items:
            try:
                value = self.read(opened.sender, item).value
                for news in news_for(opened.sender, item.message_id, value):
                    # Who comes with it may be somebody who has kept it; what was begun is answered by itself.
                    if isinstance(news.payload, Call) and self._has_begun(value["flow_id"], item.message_id):
                        continue
                    self.send(news.queue, opened.sender, new_message_id(), news.payload)
            except CoflowsError as error:
                logger.info("A sender was not told of the new key: %s", error)

    def read_all(self, opened: Opened) -> list[Incoming]:
        """Decode the messages of an envelope; raises SerializationError when one is malformed, or all together are
        more than honest sessions put into one."""
        elements, found = 0, []
        for item in opened.items:
            found.append(self.read(opened.sender, item, opened.expiry))
            elements += found[-1].elements
            if elements > MAX_PARCEL_ELEMENTS:
                raise SerializationError(f"The envelope's messages have more than {MAX_PARCEL_ELEMENTS} elements.")
        return found

    def read(self, sender: str, item: Item, until: int = 0) -> Incoming:
        """Decode one message of an envelope; raises SerializationError."""
        value, elements = decode_counted(item.payload, max_bytes=self._max_bytes + ENVELOPE_ALLOWANCE)
        place = None if item.stream is None else Place(item.stream, item.number)
        return Incoming(sender, item.message_id, value, item.payload, place, until, elements)

    # -- replies -----------------------------------------------------------------------------------------------

    def expect(self, message_id: str, sender: str) -> PendingReply:
        """``sender``'s reply to come to ``message_id``; ask before sending. Several may wait for one reply."""
        if self._consumer is None or self.closed:
            self._listen()
        return self._waiting.expect(message_id, sender)

    def request(
        self,
        queue: str,
        recipient: str,
        message_id: str,
        payload: Payload,
        *,
        answers: str | None = None,
        unroutable: CoflowsError | None = None,
    ) -> PendingReply:
        """Send, and expect the reply to ``answers`` (default: ``message_id``). A failed publish fails the reply, with
        ``unroutable`` when there is no such queue."""
        data = self.encode(payload)
        pending = self.expect(answers or message_id, recipient)
        self.post(queue, recipient, message_id, data, partial(self._requested, pending, unroutable))
        return pending

    def _requested(self, pending: PendingReply, unroutable: CoflowsError | None, error: BaseException | None) -> None:
        if error is not None:
            self._waiting.settle(pending, (unroutable or error) if isinstance(error, UnroutableError) else error)

    def call(
        self, route: Route, message_id: str, call: Call, unroutable: Unroutable, published: Future[None] | None
    ) -> PendingReply:
        """``request`` of an instance, gone after when no reply comes; ``unroutable`` makes the error for when its queue
        is not there. ``published``, if any, resolves or fails with the publish."""
        data = self.encode(call)
        pending = self.expect(message_id, route.address.user_id)
        self._waiting.go_after(pending, route)
        pending.data = data
        done = partial(self._called, pending, unroutable, published)
        pending.place = self._lines.post(
            route.queue, route.address.user_id, message_id, data, done, ordered=route.ordered
        )
        return pending

    def _called(
        self,
        pending: PendingReply,
        unroutable: Unroutable,
        published: Future[None] | None,
        error: BaseException | None,
    ) -> None:
        if error is not None:
            if isinstance(error, UnroutableError) and pending.route is not None:
                error = unroutable(pending.route.address)
            self._waiting.settle(pending, error)
            if published is not None:
                published.set_exception(error)
        elif published is not None:
            published.set_result(None)

    def recall(self, route: Route, message_id: str, unroutable: Unroutable) -> PendingReply:
        """The reply to come to a message that was sent before, perhaps by another session."""
        pending = self.expect(message_id, route.address.user_id)
        self._waiting.go_after(pending, route, REOPENED_FIRST_LOOK)
        self._post_recall(pending, partial(self._called, pending, unroutable, None))
        return pending

    def cancel(self, pending: PendingReply) -> None:
        """Nobody wants the reply any more: tell the flow."""
        self._waiting.forget(pending)
        if (route := pending.route) is not None:
            request = Cancel(flow_id=route.address.flow_id, message_id=pending.message_id)
            self.send(route.queue, route.address.user_id, new_message_id(), request)

    def _ask(self, pending: PendingReply) -> None:
        self._post_recall(pending, _ignore)

    def _post_recall(self, pending: PendingReply, done: Done) -> None:
        route = pending.route
        assert route is not None
        recall = Recall(flow_id=route.address.flow_id, message_id=pending.message_id, session=self.id)
        self.post(route.queue, route.address.user_id, new_message_id(), self.encode(recall), done)

    def _resend(self, pending: PendingReply) -> None:
        route = pending.route
        assert route is not None and pending.data is not None
        user_id = route.address.user_id
        self.post(route.queue, user_id, pending.message_id, pending.data, _ignore, place=pending.place)

    def close(self) -> None:
        """Fail everybody who waits, and delete the reply queue. Idempotent."""
        with self._lock:
            self.closed = True
            consumer, self._consumer = self._consumer, None
        self._waiting.close()
        if consumer is not None:
            consumer.close()
            try:
                self._broker.delete(consumer.queue)
            except BrokerError as error:
                logger.info("The session's queue is left to expire: %s", error)

    def _listen(self) -> None:
        with self._lock:
            if self.closed:
                raise BrokerUnavailableError("The session is closed.", hint="Connect again.")
            if self._consumer is None:
                queue = session_queue(self._identity.user_id, self.id)
                self._broker.declare(queue)
                self._consumer = self._broker.consume(queue.name, self._on_replies, prefetch=1000)

    def _on_replies(self, delivery: Delivery) -> None:
        delivery.ack()
        try:
            opened = self.open(delivery.body)
        except CoflowsError as error:
            self._drop(error)
            return
        for item in opened.items:
            try:
                reply = Reply.from_dict(self.read(opened.sender, item).value)
            except CoflowsError as error:
                self._drop(error)
            else:
                self._waiting.arrived(opened.sender, reply)

    def _drop(self, error: CoflowsError) -> None:
        logger.warning("Dropped what is no reply: %s", error)
        self.refusals.count(error)


def _by_its_author(payload: Payload, error: SerializationError) -> SerializationError:
    """The error that names the key as the author of the data knows it."""
    if isinstance(payload, Call | Reply):
        try:
            encode(payload.data)
        except SerializationError as named:
            return named
    return error


def _into(future: Future[None]) -> Done:
    """Resolve a future by what became of a publish."""

    def done(error: BaseException | None) -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    return done


def _ignore(_error: BaseException | None) -> None:
    return None
