"""One open session of a user: seals and publishes payloads, and gives arriving replies to those who wait."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass

from pydantic import TypeAdapter

from coflows.broker.base import Broker, Consumer, Delivery
from coflows.broker.topology import session_queue
from coflows.codec.wire import check_size, decode, encode
from coflows.errors import (
    BrokerUnavailableError,
    CoflowsError,
    SerializationError,
    UnroutableError,
)
from coflows.identity.keys import Identity
from coflows.identity.sealing import open_envelope, seal
from coflows.model.messages import new_message_id
from coflows.model.wire import Payload, Reply, read_payload

logger = logging.getLogger(__name__)

ENVELOPE_ALLOWANCE = 4_096
"""Bytes that an envelope and payload may add to a message of the largest size."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A payload, opened: who sent it (proven), under which id, and its decoded but unchecked value."""

    sender: str
    message_id: str
    value: object


@dataclass(slots=True)
class _Waiter:
    sender: str
    reply: Future[Reply]
    on_pending: Callable[[], None] | None


class Session:
    """Thread-safe. The reply queue is declared when the first reply is expected."""

    def __init__(self, identity: Identity, broker: Broker, *, max_message_bytes: int, ttl: float) -> None:
        self.id = new_message_id()
        self._identity = identity
        self._broker = broker
        self._max_bytes = max_message_bytes
        self._ttl = ttl
        self._waiters: dict[str, _Waiter] = {}
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._reply_adapter = TypeAdapter(Reply)
        self.closed = False

    def send(self, queue: str, recipient: str, message_id: str, payload: Payload) -> Future[None]:
        """Seal for ``recipient`` and publish. Raises SerializationError or MessageTooLargeError before anything is
        sent; the future resolves when the message is durable, or fails as ``Broker.publish_async`` says."""
        return self.send_encoded(queue, recipient, message_id, self.encode(payload))

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

    def send_encoded(self, queue: str, recipient: str, message_id: str, data: bytes) -> Future[None]:
        """``send`` of a payload that was encoded before."""
        body = seal(self._identity, recipient, message_id, int(time.time() + self._ttl), data)
        return self._broker.publish_async(queue, body)

    def open(self, body: bytes) -> Incoming:
        """Open and decode what another user sent; raises EnvelopeError or SerializationError."""
        opened = open_envelope(self._identity, body, time.time(), self._max_bytes + ENVELOPE_ALLOWANCE)
        value = decode(opened.payload, max_bytes=self._max_bytes + ENVELOPE_ALLOWANCE)
        return Incoming(opened.sender, opened.message_id, value)

    def expect(
        self, message_id: str, sender: str, on_pending: Callable[[], None] | None = None
    ) -> Future[Reply]:
        """A future of ``sender``'s reply to ``message_id``; ask before sending. ``on_pending`` is called when the
        answer is that there is none yet. Several may wait for one reply."""
        self._listen()
        with self._lock:
            waiter = self._waiters.get(message_id)
            if waiter is None or waiter.reply.done():
                waiter = self._waiters[message_id] = _Waiter(sender, Future(), on_pending)
                waiter.reply.add_done_callback(lambda reply: self._forget(message_id, reply))
            return waiter.reply

    def _forget(self, message_id: str, reply: Future[Reply]) -> None:
        waiter = self._waiters.get(message_id)
        if waiter is not None and waiter.reply is reply:
            self._waiters.pop(message_id, None)

    def request(
        self,
        queue: str,
        recipient: str,
        message_id: str,
        payload: Payload,
        *,
        answers: str | None = None,
        unroutable: CoflowsError | None = None,
        on_pending: Callable[[], None] | None = None,
    ) -> tuple[Future[Reply], Future[None]]:
        """Send, and expect the reply to ``answers`` (default: ``message_id``). Gives the reply's future and the
        publish's; a failed publish fails the reply's too, with ``unroutable`` when there is no such queue."""
        data = self.encode(payload)
        reply = self.expect(answers or message_id, recipient, on_pending)
        published = self.send_encoded(queue, recipient, message_id, data)

        def settle(done: Future[None]) -> None:
            error = done.exception()
            if isinstance(error, UnroutableError) and unroutable is not None:
                error = unroutable
            if error is not None:
                _resolve(reply, error)

        published.add_done_callback(settle)
        return reply, published

    def close(self) -> None:
        """Fail everybody who waits, and delete the reply queue. Idempotent."""
        with self._lock:
            self.closed = True
            consumer, self._consumer = self._consumer, None
            waiting = [waiter.reply for waiter in self._waiters.values()]
        for reply in waiting:
            _resolve(reply, BrokerUnavailableError("The session was closed.", hint="Reopen the future by its key."))
        if consumer is not None:
            consumer.close()
            self._broker.delete(consumer.queue)

    def _listen(self) -> None:
        with self._lock:
            if self.closed:
                raise BrokerUnavailableError("The session is closed.", hint="Connect again.")
            if self._consumer is None:
                queue = session_queue(self._identity.user_id, self.id)
                self._broker.declare(queue)
                self._consumer = self._broker.consume(queue.name, self._on_reply, prefetch=1000)

    def _on_reply(self, delivery: Delivery) -> None:
        try:
            incoming = self.open(delivery.body)
            reply = read_payload(self._reply_adapter, incoming.value)
        except CoflowsError as error:
            logger.warning("Dropped what is no reply: %s", error)
            delivery.ack()
            return
        delivery.ack()
        waiter = self._waiters.get(reply.answers)
        if waiter is None:
            logger.debug("Nobody waits for the reply to %s.", reply.answers)
        elif waiter.sender != incoming.sender:
            logger.warning("Dropped a forged reply to %s: it came from another user.", reply.answers)
        elif not reply.pending:
            _resolve(waiter.reply, reply)
        elif waiter.on_pending is not None:
            waiter.on_pending()


def _resolve(reply: Future[Reply], outcome: Reply | BaseException) -> None:
    try:
        if isinstance(outcome, BaseException):
            reply.set_exception(outcome)
        else:
            reply.set_result(outcome)
    except InvalidStateError:
        logger.debug("A reply came after its future had ended.")
