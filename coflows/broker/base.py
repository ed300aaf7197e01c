"""The broker contract: named durable queues of opaque bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from coflows.errors import BrokerUnavailableError


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue and the properties it is declared with; declaring it again with others is a QueueMismatchError.

    ``single_active``: of all its consumers, only the one that has been there longest gets messages; the next one
    takes over at once when that one goes. ``expires``: seconds without a consumer after which the queue is deleted
    with what it holds (None: never). ``dead_letter_queue``: where rejected messages go (None: they are dropped).
    ``private``: only dead letters of its user's own queues get there, on a broker where users have accounts.
    """

    name: str
    single_active: bool = False
    expires: float | None = None
    dead_letter_queue: str | None = None
    private: bool = field(default=False, compare=False)


class Delivery(ABC):
    """One message in a consumer's hands. Settle it exactly once; settling again, or after the consumer or the
    connection went, does nothing (the message is then delivered again, with ``redelivered`` set). Thread-safe."""

    queue: str
    body: bytes
    redelivered: bool
    origin: str | None
    """For a dead letter: the queue it was rejected from."""
    reason: str | None
    """For a dead letter: why."""

    @abstractmethod
    def ack(self) -> None:
        """The message is done with; it is never delivered again."""

    @abstractmethod
    def requeue(self) -> None:
        """Give the message back, to its old place in the queue."""

    @abstractmethod
    def reject(self, reason: str) -> None:
        """Move the message to the queue's dead-letter queue, with ``reason``; drop it where there is none."""


class Consumer(ABC):
    """A running subscription to one queue. Thread-safe."""

    queue: str

    @abstractmethod
    def close(self) -> None:
        """Stop, and give every unsettled delivery back to its old place before another consumer sees the queue.

        Returns when the broker has done so. After that the callback is not called again. Idempotent.
        """


class Broker(ABC):
    """One user's connection to a broker. All methods are thread-safe and may be called from any thread but the
    consumer callbacks' own, where only ``publish_async`` and the settling of deliveries are allowed.

    Raises, everywhere: BrokerUnavailableError when the broker cannot be reached within the adapter's bounded wait
    (it keeps trying in the background), BrokerAuthError when it refuses the account, BrokerError for the rest.
    """

    url: str
    """Without the password; safe to print."""

    @abstractmethod
    def declare(self, *queues: QueueSpec) -> None:
        """Make the queues, durable, unless they exist. Raises QueueMismatchError when one exists with other
        properties; the error names the queue and the mend. A queue declared by this object that is found missing
        after a reconnect is declared again before its consumers resume."""

    @abstractmethod
    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        """Send ``body`` to ``queue``. The future resolves when the broker has the message on disk, and fails with
        UnroutableError when there is no such queue, or BrokerUnavailableError. It waits while the queue is
        full. Messages to one queue from one object are enqueued in the order of the calls, except for what a full queue
        refused at first. A message whose confirm was lost with the connection is sent
        again after the reconnect: at least once, so a receiver must dedupe."""

    def publish(self, queue: str, body: bytes, timeout: float | None = 30.0) -> None:
        """``publish_async`` and wait for it. Raises BrokerUnavailableError after ``timeout``."""
        try:
            self.publish_async(queue, body).result(timeout)
        except TimeoutError as error:
            raise BrokerUnavailableError(
                f"Broker {self.url} did not confirm a message to {queue} within {timeout} s.",
                hint="It may be blocked by a memory or disk alarm; see `coflows doctor`.",
            ) from error

    @abstractmethod
    def consume(self, queue: str, callback: Callable[[Delivery], None], *, prefetch: int = 100) -> Consumer:
        """Call ``callback`` for every message, in order, from one thread of the adapter's, at most ``prefetch``
        unsettled at a time. The callback must not block; an exception from it is logged and requeues the message.
        Survives reconnects. Raises UnroutableError when the queue does not exist."""

    @abstractmethod
    def get(self, queue: str) -> Delivery | None:
        """Take one message, or None when the queue is empty. Raises UnroutableError when it does not exist. A
        message that is neither settled nor requeued comes back when the broker object is closed."""

    @abstractmethod
    def exists(self, queue: str) -> bool:
        """Whether there is such a queue."""

    @abstractmethod
    def delete(self, queue: str) -> None:
        """Delete the queue and what it holds; nothing happens when there is none."""

    @abstractmethod
    def close(self) -> None:
        """Close all consumers, wait a moment for unconfirmed messages, and let go of the broker. Idempotent. Pending
        publish futures fail with BrokerUnavailableError."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
