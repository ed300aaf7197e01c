"""The embedded broker: one folder of this machine, shared by its processes, with nothing to install.

One thread of each broker object does all the work on the file: it gathers what was asked for meanwhile, does it in one
transaction, takes messages for its consumers in the same one, then rings the bells of the other processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import queue as queues
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.broker.embedded_file import BrokerFile, Claim
from coflows.doorbell import Doorbell
from coflows.errors import BrokerError, BrokerUnavailableError, CoflowsError

logger = logging.getLogger(__name__)

SHARE = 16
"""Messages that a consumer takes at a time while others consume the same queue."""
Result = TypeVar("Result")


@dataclass(slots=True)
class _Order:
    """One thing to do in the next transaction. ``durable``: on disk before its future resolves. ``wakes``: others may
    have something to take after it."""

    work: Callable[[BrokerFile], Any]
    future: Future[Any]
    durable: bool
    wakes: bool
    outcome: Any = None
    error: CoflowsError | None = None


class EmbeddedDelivery(Delivery):
    """A message taken from the file."""

    def __init__(self, consumer: EmbeddedConsumer, queue: str, claim: Claim) -> None:
        self.queue, self.body, self.redelivered = queue, claim.body, claim.redelivered
        self.origin, self.reason = claim.origin, claim.reason
        self._consumer = consumer
        self._id = claim.id
        self._open = True

    def ack(self) -> None:
        """See Delivery."""
        self._settle(lambda file: file.ack(self._id, self._consumer.id), wakes=False)

    def requeue(self) -> None:
        """See Delivery."""
        self._settle(lambda file: file.requeue(self._id, self._consumer.id), wakes=True)

    def reject(self, reason: str) -> None:
        """See Delivery."""
        self._settle(lambda file: file.reject(self._id, self._consumer.id, reason), wakes=True)

    def _settle(self, work: Callable[[BrokerFile], None], *, wakes: bool) -> None:
        if self._open:
            self._open = False
            self._consumer.settle(work, wakes)


class EmbeddedConsumer(Consumer):
    """A subscription; ``taken`` counts its unsettled deliveries and belongs to the broker's thread."""

    def __init__(self, broker: EmbeddedBroker, queue: str, callback: Callable[[Delivery], None], prefetch: int) -> None:
        self.queue = queue
        self.id = 0
        self.prefetch = prefetch
        self.taken = 0
        self.closed = False
        self._broker = broker
        self._callback = callback
        self._calling = threading.RLock()

    def settle(self, work: Callable[[BrokerFile], None], wakes: bool) -> None:
        """Settle one of its deliveries, in the next transaction."""

        def settle(file: BrokerFile) -> None:
            self.taken -= 1
            work(file)

        self._broker.order(settle, durable=False, wakes=wakes)

    def deliver(self, delivery: Delivery) -> None:
        """Call the callback, unless closed."""
        with self._calling:
            if self.closed:
                return
            try:
                self._callback(delivery)
            except Exception:
                logger.exception("The consumer of %s failed; its message goes back.", self.queue)
                delivery.requeue()

    def close(self) -> None:
        """See Consumer."""
        with self._calling:
            if self.closed:
                return
            self.closed = True
        self._broker.remove(self)


class EmbeddedBroker(Broker):
    """See Broker. ``directory`` is made when it is not there, readable by nobody else."""

    def __init__(self, directory: Path) -> None:
        self.url = f"embedded://{directory.absolute()}"
        self._orders: deque[_Order] = deque()
        self._wake = threading.Condition()
        self._look = True
        self._closing = False
        self._consumers: list[EmbeddedConsumer] = []
        self._deliveries: queues.SimpleQueue[tuple[EmbeddedConsumer, Delivery] | None] = queues.SimpleQueue()
        self._getter: EmbeddedConsumer | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            with self._file_lock():
                self._file = BrokerFile(directory / "broker.db")
            self._bell = Doorbell(directory, self._rung)
        except (OSError, sqlite3.Error) as error:
            raise BrokerUnavailableError(
                f"Cannot use {directory} as an embedded broker: {error}.",
                hint="Give a folder that you may write, as embedded:///folder or COFLOWS_HOME.",
            ) from error
        self._worker = threading.Thread(target=self._work, name="coflows-embedded", daemon=True)
        self._deliverer = threading.Thread(target=self._deliver, name="coflows-deliver", daemon=True)
        self._worker.start()
        self._deliverer.start()

    def declare(self, *queues: QueueSpec) -> None:
        """See Broker."""

        def declare(file: BrokerFile) -> None:
            for spec in queues:
                file.declare(spec)

        self._do(declare)

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        """See Broker."""
        return self.order(lambda file: file.publish(queue, body), durable=True, wakes=True)

    def consume(self, queue: str, callback: Callable[[Delivery], None], *, prefetch: int = 100) -> Consumer:
        """See Broker."""
        consumer = EmbeddedConsumer(self, queue, callback, prefetch)

        def add(file: BrokerFile) -> None:
            consumer.id = file.add_consumer(queue, self._bell.id)
            self._consumers.append(consumer)
            self._look = True

        self._do(add)
        return consumer

    def get(self, queue: str) -> Delivery | None:
        """See Broker."""

        def get(file: BrokerFile) -> Delivery | None:
            file.require(queue)
            if self._getter is None:
                self._getter = EmbeddedConsumer(self, "", lambda _delivery: None, 0)
                self._getter.id = file.add_consumer("", self._bell.id)
            claims = file.take(queue, self._getter.id, 1)
            return EmbeddedDelivery(self._getter, queue, claims[0]) if claims else None

        return self._do(get)

    def exists(self, queue: str) -> bool:
        """See Broker."""
        return self._do(lambda file: file.exists(queue))

    def delete(self, queue: str) -> None:
        """See Broker."""
        self._do(lambda file: file.delete(queue))

    def close(self) -> None:
        """See Broker."""
        with self._wake:
            if self._closing:
                return
        for consumer in list(self._consumers):
            consumer.close()
        getter = self._getter
        if getter is not None:
            with contextlib.suppress(BrokerError):
                self._do(lambda file: file.remove_consumer(getter.id), wakes=True)
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._worker.join()
        self._deliveries.put(None)
        if threading.current_thread() is not self._deliverer:
            self._deliverer.join()
        self._bell.close()
        self._file.connection.close()
        os.close(self._lock_file)

    # -- orders ------------------------------------------------------------------------------------------------

    def order(self, work: Callable[[BrokerFile], Result], *, durable: bool, wakes: bool) -> Future[Result]:
        """Do ``work`` in the next transaction."""
        future: Future[Result] = Future()
        with self._wake:
            if self._closing:
                future.set_exception(self._closed_error())
                return future
            self._orders.append(_Order(work, future, durable, wakes))
            self._wake.notify()
        return future

    def remove(self, consumer: EmbeddedConsumer) -> None:
        """Take a consumer off its queue, and give back what it had."""

        def remove(file: BrokerFile) -> None:
            if consumer in self._consumers:
                self._consumers.remove(consumer)
            file.remove_consumer(consumer.id)

        with contextlib.suppress(BrokerError):
            self._do(remove, wakes=True)

    def _do(self, work: Callable[[BrokerFile], Result], *, wakes: bool = False) -> Result:
        return self.order(work, durable=True, wakes=wakes).result()

    def _closed_error(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"The broker object of {self.url} is closed.", hint="Connect again.")

    def _rung(self) -> None:
        with self._wake:
            self._look = True
            self._wake.notify()

    # -- the broker's thread -----------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._orders or self._look or self._closing)
                orders, self._orders = list(self._orders), deque()
                look, self._look = self._look, False
                if self._closing and not orders:
                    return
            self._transact(orders, look or any(order.wakes for order in orders))

    def _transact(self, orders: list[_Order], look: bool) -> None:
        try:
            durable = any(order.durable for order in orders)
            with self._transaction(durable):
                rang = self._file.bury_dead(self._bell.alive) if look and not orders else False
                for order in orders:
                    try:
                        order.outcome = order.work(self._file)
                    except CoflowsError as error:
                        order.error = error
                taken = self._take()
        except Exception as error:  # whatever it is, this thread lives on and those who wait are told
            problem = BrokerError(f"The embedded broker at {self.url} failed: {error}.", hint="Is the disk full?")
            problem.__cause__ = error
            for order in orders:
                order.future.set_exception(problem)
            logger.error("%s", problem)
            return
        if rang or any(order.wakes for order in orders):
            self._bell.ring()
        for order in orders:
            if order.error is None:
                order.future.set_result(order.outcome)
            else:
                order.future.set_exception(order.error)
        for one in taken:
            self._deliveries.put(one)

    def _take(self) -> list[tuple[EmbeddedConsumer, Delivery]]:
        taken: list[tuple[EmbeddedConsumer, Delivery]] = []
        for consumer in self._consumers:
            room = consumer.prefetch - consumer.taken
            if room <= 0 or consumer.closed or not self._file.has_ready(consumer.queue):
                continue
            others = self._file.consumers(consumer.queue)
            if len(others) > 1:
                if self._file.is_single_active(consumer.queue) and others[0] != consumer.id:
                    continue
                room = min(room, SHARE)
            claims = self._file.take(consumer.queue, consumer.id, room)
            consumer.taken += len(claims)
            if len(claims) == SHARE:
                self._look = True  # There may be more, after the others had their chance.
            taken += [(consumer, EmbeddedDelivery(consumer, consumer.queue, claim)) for claim in claims]
        return taken

    @contextlib.contextmanager
    def _transaction(self, durable: bool) -> Iterator[None]:
        connection = self._file.connection
        with self._file_lock():
            # Losing an acknowledgement in a crash only delivers again; so only publishing waits for the disk.
            connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        """Wait for other processes here: SQLite's own waiting sleeps, this wakes at once."""
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    # -- the delivering thread ---------------------------------------------------------------------------------

    def _deliver(self) -> None:
        while (one := self._deliveries.get()) is not None:
            consumer, delivery = one
            consumer.deliver(delivery)
