"""The embedded broker: one folder of this machine, shared by its processes, with nothing to install.

Whoever publishes writes to the file himself, together with what others asked for meanwhile, and rings the bells of the
processes that consume the queue; they have the message while the disk still writes it, and the publisher is told when
it has. One thread of each broker object waits for its bell, takes messages and calls the consumers.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.broker.embedded_consumer import EmbeddedConsumer, EmbeddedDelivery
from coflows.broker.embedded_file import BrokerFile
from coflows.broker.embedded_log import WriteAheadLog
from coflows.broker.embedded_taking import Taking
from coflows.doorbell import Doorbell
from coflows.errors import BrokerError, BrokerUnavailableError, CoflowsError

logger = logging.getLogger(__name__)

TICK = 1.0
"""Seconds after which the death of others, and what was missed, is looked for."""
ACK_DELAY = 0.05
"""Seconds that an acknowledgement waits for company. It comes again when this process is killed meanwhile."""
ACKS = 64
GATHERED = 32
_TRIES = 4
_PAUSE = 0.00005
Result = TypeVar("Result")


@dataclass(slots=True)
class _Publish:
    """A message to be appended, and who waits for it."""

    queue: str
    body: bytes
    future: Future[None]
    error: CoflowsError | None = None


Order = _Publish | Callable[[BrokerFile], None]


class EmbeddedBroker(Broker):
    """See Broker. ``directory`` is made when it is not there, readable by nobody else."""

    def __init__(self, directory: Path) -> None:
        self.url = f"embedded://{directory.absolute()}"
        self.acked: deque[int] = deque()
        """Messages to be removed with the next transaction, or soon."""
        self._orders: deque[Order] = deque()
        self._turn = threading.Lock()
        """Who holds it uses the file."""
        self._gathering: set[int] = set()
        self._to_ring: set[str] = set()
        self._closing = threading.Lock()
        self._closed = False
        self._bury = True
        self._removing: list[int] = []
        self._flush_at = 0.0
        self._getter: EmbeddedConsumer | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with self._file_lock():
                self._file = BrokerFile(directory / "broker.db")
                self._file.refresh()
            self._log = WriteAheadLog(directory / "broker.db-wal", self._gather)
            self._bell = Doorbell(directory)
        except (OSError, sqlite3.Error) as error:
            raise BrokerUnavailableError(
                f"Cannot use {directory} as an embedded broker: {error}.",
                hint="Give a folder that you may write, as embedded:///folder or COFLOWS_HOME.",
            ) from error
        self._taking = Taking(self._file)
        self._thread = threading.Thread(target=self._run, name="coflows-embedded", daemon=True)
        self._thread.start()

    def declare(self, *queues: QueueSpec) -> None:
        """See Broker."""

        def declare(file: BrokerFile) -> None:
            for spec in queues:
                file.declare(spec)

        self._do(declare, durable=True)

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        """See Broker."""
        future: Future[None] = Future()
        self._order(_Publish(queue, body, future))
        return future

    def consume(self, queue: str, callback: Callable[[Delivery], None], *, prefetch: int = 100) -> Consumer:
        """See Broker."""
        consumer = EmbeddedConsumer(self, queue, callback, prefetch)

        def add(file: BrokerFile) -> None:
            consumer.id = file.add_consumer(queue, self._bell.id)
            self._taking.consumers.append(consumer)
            self._to_ring.add(self._bell.id)

        self._do(add)
        return consumer

    def get(self, queue: str) -> Delivery | None:
        """See Broker."""

        def get(file: BrokerFile) -> Delivery | None:
            found = file.require(queue)
            if self._getter is None:
                self._getter = EmbeddedConsumer(self, "", lambda _delivery: None, 0)
                self._getter.id = file.add_getter(self._bell.id)
            file.share(found)
            for message in file.ready(found, 0, 0, 1):
                file.claim([message], self._getter.id)
                claim = file.read(message, self._getter.id)
                return None if claim is None else self._getter.take(claim, queue)
            return None

        return self._do(get)

    def exists(self, queue: str) -> bool:
        """See Broker."""
        return self._do(lambda file: file.find(queue) is not None)

    def delete(self, queue: str) -> None:
        """See Broker."""
        self._do(lambda file: file.delete(queue), durable=True)

    def close(self) -> None:
        """See Broker."""
        if not self._closing.acquire(blocking=False):
            return
        getter = [] if self._getter is None else [self._getter]
        for consumer in [*self._taking.consumers, *getter]:
            consumer.close()
        with contextlib.suppress(BrokerError):
            self._do(lambda _file: None)
        with self._turn:
            self._closed = True
        self._bell.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._log.close()
        self._refuse()
        self._bell.close()
        self._file.connection.close()
        os.close(self._lock_file)

    # -- for its consumers -------------------------------------------------------------------------------------

    def has_acked(self, consumer: EmbeddedConsumer) -> None:
        """A message was put with ``acked``."""
        count = len(self.acked)
        if consumer is self._getter or count % ACKS == 0:
            self._order(lambda _file: None)
        elif count == 1:
            self._flush_at = time.monotonic() + ACK_DELAY
            self._bell.wake()
        elif consumer.behind and consumer.room * 4 >= consumer.prefetch:
            self._bell.wake()

    def requeue(self, consumer: EmbeddedConsumer, message: int) -> None:
        """Give a message back."""

        def requeue(file: BrokerFile) -> None:
            file.requeue(message)
            consumer.forget(message)
            self._to_ring |= {*file.topology.all_sessions(), self._bell.id}

        self._order(requeue)

    def reject(self, consumer: EmbeddedConsumer, message: int, reason: str) -> None:
        """Move a message to the dead letters."""

        def reject(file: BrokerFile) -> None:
            went_to = file.reject(message, reason)
            consumer.forget(message)
            if went_to is not None:
                self._to_ring.update(file.topology.sessions(went_to))
            if consumer.behind:
                self._to_ring.add(self._bell.id)

        self._order(reject)

    def remove(self, consumer: EmbeddedConsumer) -> None:
        """Take a consumer off its queue, and give back what it had."""

        def remove(file: BrokerFile) -> None:
            if consumer in self._taking.consumers:
                self._taking.consumers.remove(consumer)
            self._to_ring |= file.topology.all_sessions()
            file.remove_consumer(consumer.id, list(consumer.unsettled))

        with contextlib.suppress(BrokerError):
            self._do(remove)

    # -- transactions ------------------------------------------------------------------------------------------

    def _do(self, work: Callable[[BrokerFile], Result], *, durable: bool = False) -> Result:
        """Do ``work`` in a transaction, after what was ordered before."""
        with self._using():
            if self._closed:
                raise self._closed_error()
            self._work_off(waits=True)
            with self._translated(), self._file_lock(), self._transaction():
                outcome = work(self._file)
            self._ring()
            if durable:
                self._log.sync()
        return outcome

    def _order(self, order: Order) -> None:
        """Do it in the next transaction: now, in this thread, unless the file is being used, or this thread is at
        something that may order more."""
        self._orders.append(order)
        if threading.get_ident() not in self._gathering or len(self._orders) >= GATHERED:
            self._work_off_now()

    @contextlib.contextmanager
    def _gather(self) -> Iterator[None]:
        """What this thread orders meanwhile is done together."""
        me = threading.get_ident()
        self._gathering.add(me)
        try:
            yield
        finally:
            self._gathering.discard(me)
            self._work_off_now()

    def _work_off_now(self) -> None:
        while self._orders and self._turn.acquire(blocking=False):
            try:
                done = self._work_off(waits=False)
            finally:
                self._turn.release()
            if not done:
                self._bell.wake()
                return

    @contextlib.contextmanager
    def _using(self) -> Iterator[None]:
        with self._turn:
            yield
        if self._orders:  # by who found it used
            self._bell.wake()

    def _work_off(self, *, waits: bool) -> bool:
        """Do what was ordered; False when that is left to a thread that ``waits``, as another process has the file."""
        if self._closed:
            self._refuse()
            return True
        if not waits and not self._lock_at_once():
            return False
        orders = self._take_orders()
        try:
            with self._translated(), contextlib.nullcontext() if not waits else self._file_lock():
                if len(orders) != 1 or len(self.acked) >= ACKS or not self._publish_one(orders[0]):
                    with self._transaction():
                        self._apply(orders)
        except BrokerError as error:
            self._failed(orders, error)
        finally:
            if not waits:
                fcntl.flock(self._lock_file, fcntl.LOCK_UN)
        self._ring()
        for order in orders:
            if isinstance(order, _Publish):
                self._log.confirm(order.future, order.error)
        return True

    def _failed(self, orders: list[Order], problem: BrokerError) -> None:
        logger.error("%s", problem)
        for order in reversed(orders):
            if isinstance(order, _Publish):
                order.error = problem
            else:
                self._orders.appendleft(order)  # A message given back stays with this process until that works.

    def _publish_one(self, order: Order) -> bool:
        if not isinstance(order, _Publish):
            return False
        queue = self._file.publish_one(order.queue, order.body)
        if queue is None:
            return False
        self._to_ring.update(self._file.topology.sessions(queue))
        return True

    def _take_orders(self) -> list[Order]:
        return [self._orders.popleft() for _ in range(len(self._orders))]

    def _apply(self, orders: list[Order]) -> None:
        self._remove_acked()
        for order in orders:
            if not isinstance(order, _Publish):
                order(self._file)
                continue
            try:
                queue = self._file.publish(order.queue, order.body)
                self._to_ring.update(self._file.topology.sessions(queue))
            except CoflowsError as error:
                order.error = error

    def _remove_acked(self) -> None:
        self._removing = [self.acked.popleft() for _ in range(len(self.acked))]
        self._file.remove(self._removing)

    def _ring(self) -> None:
        if self._to_ring:
            bells, self._to_ring = self._to_ring, set()
            if not self._bell.ring(bells):
                self._bury = True
                self._bell.wake()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except CoflowsError:
            raise
        except Exception as error:  # whatever it is, those who wait are told
            raise BrokerError(f"The embedded broker at {self.url} failed: {error}.", hint="Is the disk full?") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        connection = self._file.connection
        connection.execute("BEGIN IMMEDIATE")
        self._removing = []
        try:
            self._file.refresh()
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self.acked.extend(self._removing)
            raise

    @contextlib.contextmanager
    def _file_lock(self) -> Iterator[None]:
        """Wait for other processes here: SQLite's own waiting sleeps, this wakes at once."""
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock_file, fcntl.LOCK_UN)

    def _lock_at_once(self) -> bool:
        """The file's lock, unless another process has it for longer than a transaction takes."""
        for attempt in range(_TRIES):
            try:
                fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if attempt < _TRIES - 1:
                    time.sleep(_PAUSE)
        return False

    def _refuse(self) -> None:
        for order in self._take_orders():
            if isinstance(order, _Publish):
                order.future.set_exception(self._closed_error())

    def _closed_error(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"The broker object of {self.url} is closed.", hint="Connect again.")

    # -- the broker's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        next_tick = 0.0
        while not self._closed:
            try:
                if (now := time.monotonic()) >= next_tick or self._bury:
                    next_tick, self._bury = now + TICK, False
                    self._bury_dead()
                taken = self._take()
            except CoflowsError as error:
                logger.error("%s", error)
                self._bell.wait(TICK)
                continue
            with self._gather():
                for consumer, delivery in taken:
                    consumer.deliver(delivery)
            if not self._taking.wants:
                self._bell.wait(max(0.0, self._flush_at - now) if self.acked else TICK)

    def _take(self) -> list[tuple[EmbeddedConsumer, EmbeddedDelivery]]:
        """One look into the file, and what was left to this thread to do."""
        with self._using(), self._translated():
            if self._closed:
                return []
            if self._orders or (self.acked and time.monotonic() >= self._flush_at):
                self._work_off(waits=True)
            taken = self._taking.look()
            if taken is None:
                try:
                    with self._file_lock(), self._transaction():
                        taken = self._taking.take(self._remove_acked)
                except BaseException:
                    self._taking.undo()
                    raise
            return [(consumer, consumer.take(claim, consumer.queue)) for consumer, claim in taken]

    def _bury_dead(self) -> None:
        """Remove the consumers of processes that are gone, and queues that outlived their expiry."""
        with self._using(), self._translated():
            file = self._file
            dead = [session for session in file.sessions() if session != self._bell.id and not self._bell.alive(session)]
            if self._closed or not (dead or file.has_expired_queues()):
                return
            with self._file_lock(), self._transaction():
                for session in dead:
                    file.remove_session(session)
                file.delete_expired_queues()
                file.refresh()
            self._to_ring |= file.topology.all_sessions()
            self._ring()
