"""One open session of a user: seals and publishes payloads, and gives arriving replies to those who wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from pydantic import TypeAdapter

from coflows.broker.base import Broker, Consumer, Delivery
from coflows.broker.topology import session_queue
from coflows.codec.wire import check_size, decode, encode
from coflows.errors import BrokerError, BrokerUnavailableError, CoflowsError, SerializationError, UnroutableError
from coflows.identity.keys import Identity
from coflows.identity.sealing import PARCEL, SINGLE, Item, Opened, open_envelope, seal, seal_items
from coflows.lines import MAX_BYTES, Done, Lines, Place
from coflows.model.messages import new_message_id
from coflows.model.wire import Payload, Recall, Reply, read_payload
from coflows.waiting import Inquiry, Waiting, resolve

logger = logging.getLogger(__name__)

ENVELOPE_ALLOWANCE = 4_096
"""Bytes that an envelope and payload may add to a message of the largest size."""
ITEM_ALLOWANCE = 64
REOPENED_FIRST_LOOK = 1.0


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message, opened: who sent it (proven), under which id, its decoded but unchecked value, and its place in the
    sender's order if it has one. ``data`` are the bytes of the value."""

    sender: str
    message_id: str
    value: object
    data: bytes
    place: Place | None = None


class Session:
    """Thread-safe. The reply queue is declared when the first reply is expected."""

    def __init__(
        self, identity: Identity, broker: Broker, *, max_message_bytes: int, ttl: float, envelope_version: int = PARCEL
    ) -> None:
        self.id = new_message_id()
        self.user_id = identity.user_id
        self._identity = identity
        self._broker = broker
        self._max_bytes = max_message_bytes
        self._max_envelope = max(max_message_bytes, 2 * MAX_BYTES) + ENVELOPE_ALLOWANCE + 1024 * ITEM_ALLOWANCE
        self._ttl = ttl
        self._version = envelope_version
        self._lines = Lines(self._publish, gather=envelope_version != SINGLE)
        self._waiting = Waiting()
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._reply_adapter = TypeAdapter(Reply)
        self.closed = False

    # -- out ---------------------------------------------------------------------------------------------------

    def encode(self, payload: Payload) -> bytes:
        """The bytes of a payload; raises SerializationError or MessageTooLargeError."""
        value = payload.to_dict()
        try:
            data = encode(value)
        except SerializationError:
            message = value.get("message")
            if isinstance(message, dict):
                encode(message.get("data"))  # Names the key as the author knows it.
            raise
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

    def _publish(self, queue: str, recipient: str, items: Sequence[Item]) -> Future[None]:
        expiry = int(time.time() + self._ttl)
        if self._version == SINGLE:
            body = seal(self._identity, recipient, items[0].message_id, expiry, items[0].payload)
        else:
            body = seal_items(self._identity, recipient, expiry, items)
        return self._broker.publish_async(queue, body)

    # -- in ----------------------------------------------------------------------------------------------------

    def open(self, body: bytes) -> Opened:
        """Open what another user sealed; raises EnvelopeError."""
        return open_envelope(self._identity, body, time.time(), self._max_envelope)

    def read(self, sender: str, item: Item) -> Incoming:
        """Decode one message of an envelope; raises SerializationError."""
        value = decode(item.payload, max_bytes=self._max_bytes + ENVELOPE_ALLOWANCE)
        place = None if item.stream is None else Place(item.stream, item.number)
        return Incoming(sender, item.message_id, value, item.payload, place)

    # -- replies -----------------------------------------------------------------------------------------------

    def expect(self, message_id: str, sender: str) -> Future[Reply]:
        """A future of ``sender``'s reply to ``message_id``; ask before sending. Several may wait for one reply."""
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
    ) -> tuple[Future[Reply], Future[None]]:
        """Send, and expect the reply to ``answers`` (default: ``message_id``). Gives the reply's future and the
        publish's; a failed publish fails the reply's too, with ``unroutable`` when there is no such queue."""
        data = self.encode(payload)
        reply = self.expect(answers or message_id, recipient)
        published: Future[None] = Future()
        self.post(queue, recipient, message_id, data, _failing(reply, unroutable, published))
        return reply, published

    def call(
        self,
        queue: str,
        recipient: str,
        message_id: str,
        payload: Payload,
        *,
        flow_id: str,
        ordered: bool,
        unroutable: CoflowsError,
        confirm: bool,
    ) -> tuple[Future[Reply], Future[None] | None]:
        """``request`` of an instance: ``ordered`` or not, and gone after when no reply comes. The publish's future is
        only given with ``confirm``."""
        data = self.encode(payload)
        reply = self.expect(message_id, recipient)
        published: Future[None] | None = Future() if confirm else None
        place = self.post(
            queue,
            recipient,
            message_id,
            data,
            _failing(reply, unroutable, published),
            ordered=flow_id if ordered else None,
        )

        def resend() -> None:
            self.post(queue, recipient, message_id, data, _ignore, place=place)

        self._waiting.go_after(message_id, Inquiry(self._asker(queue, recipient, flow_id, message_id), resend))
        return reply, published

    def recall(
        self, queue: str, recipient: str, message_id: str, *, flow_id: str, unroutable: CoflowsError
    ) -> Future[Reply]:
        """A future of the reply to a message that was sent before, perhaps by another session."""
        reply = self.expect(message_id, recipient)
        ask = self._asker(queue, recipient, flow_id, message_id, _failing(reply, unroutable, None))
        ask()
        self._waiting.go_after(message_id, Inquiry(ask, first=REOPENED_FIRST_LOOK))
        return reply

    def _asker(self, queue: str, recipient: str, flow_id: str, message_id: str, done: Done | None = None) -> _Asker:
        return _Asker(self, queue, recipient, flow_id, message_id, done or _ignore)

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
            logger.warning("Dropped what is no reply: %s", error)
            return
        for item in opened.items:
            try:
                reply = read_payload(self._reply_adapter, self.read(opened.sender, item).value)
            except CoflowsError as error:
                logger.warning("Dropped what is no reply: %s", error)
            else:
                self._waiting.arrived(opened.sender, reply)


@dataclass(frozen=True, slots=True)
class _Asker:
    """Asks an instance for the reply to one message."""

    session: Session
    queue: str
    recipient: str
    flow_id: str
    message_id: str
    done: Done

    def __call__(self) -> None:
        recall = Recall.made(flow_id=self.flow_id, message_id=self.message_id, session=self.session.id)
        self.session.post(self.queue, self.recipient, new_message_id(), self.session.encode(recall), self.done)


def _into(future: Future[None]) -> Done:
    """Resolve a future by what became of a publish."""

    def done(error: BaseException | None) -> None:
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    return done


def _failing(reply: Future[Reply], unroutable: CoflowsError | None, published: Future[None] | None) -> Done:
    """Fail the reply when the publish fails."""

    def done(error: BaseException | None) -> None:
        if error is None:
            if published is not None:
                published.set_result(None)
            return
        if published is not None:
            published.set_exception(error)
        resolve(reply, unroutable if isinstance(error, UnroutableError) and unroutable is not None else error)

    return done


def _ignore(_error: BaseException | None) -> None:
    return None
