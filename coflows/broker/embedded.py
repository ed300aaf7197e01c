"""The embedded broker: one folder of this machine, shared by its processes, with nothing to install.

Whoever publishes writes to the file himself, together with what others asked for meanwhile, and rings the bells of the
processes that consume the queue; they have the message while the disk still writes it, and the publisher is told when
it has. One thread of each broker object waits for its bell, takes messages and calls the consumers.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.broker.embedded_consumer import EmbeddedConsumer, EmbeddedDelivery
from coflows.broker.embedded_file import BrokerFile
from coflows.broker.embedded_taking import Taking
from coflows.broker.embedded_transactions import ACKS, Publish, Transactions
from coflows.errors import BrokerError

logger = logging.getLogger(__name__)

TICK = 1.0
"""Seconds after which the death of others, and what was missed, is looked for."""
ACK_DELAY = 0.05
"""Seconds that an acknowledgement waits for company. If this process is killed meanwhile, the message comes again."""


class EmbeddedBroker(Broker):
    """See Broker. ``directory`` is made when it is not there, readable by nobody else."""

    def __init__(self, directory: Path) -> None:
        self.url = f"embedded://{directory.absolute()}"
        self._transactions = Transactions(directory, self.url)
        self._bell = self._transactions.bell
        self._taking = Taking(self._transactions.file)
        self._getter: EmbeddedConsumer | None = None
        self._flush_at = 0.0
        self._closing = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="coflows-embedded", daemon=True)
        self._thread.start()

    def declare(self, *queues: QueueSpec) -> None:
        """See Broker."""

        def declare(file: BrokerFile) -> None:
            for spec in queues:
                file.declare(spec)
            self._transactions.ring_after(file.topology.all_sessions())

        self._transactions.do(declare, durable=True)

    def publish_async(self, queue: str, body: bytes) -> Future[None]:
        """See Broker."""
        future: Future[None] = Future()
        self._transactions.order(Publish(queue, body, future))
        return future

    def consume(self, queue: str, callback: Callable[[Delivery], None], *, prefetch: int = 100) -> Consumer:
        """See Broker."""
        consumer = EmbeddedConsumer(self, queue, callback, prefetch)

        def add(file: BrokerFile) -> None:
            consumer.id = file.add_consumer(queue, self._bell.id)
            self._taking.consumers.append(consumer)
            self._transactions.ring_after([self._bell.id])

        self._transactions.do(add)
        return consumer

    def get(self, queue: str) -> Delivery | None:
        """See Broker."""

        def get(file: BrokerFile) -> Delivery | None:
            found = file.require(queue)
            if self._getter is None:
                self._getter = EmbeddedConsumer(self, "", lambda _delivery: None, 0)
                self._getter.id = file.add_getter(self._bell.id)
            file.share(found)
            for message in file.ready(found, 0, self._getter.id, len(self._getter.unsettled) + 1):
                if message in self._getter.unsettled:
                    continue
                file.claim([message], self._getter.id)
                claim = file.read(message, self._getter.id)
                return None if claim is None else self._getter.take(claim, queue)
            return None

        return self._transactions.do(get)

    def exists(self, queue: str) -> bool:
        """See Broker."""
        return self._transactions.do(lambda file: file.find(queue) is not None)

    def delete(self, queue: str) -> None:
        """See Broker."""
        self._transactions.do(lambda file: file.delete(queue), durable=True)

    def close(self) -> None:
        """See Broker."""
        if not self._closing.acquire(blocking=False):
            return
        getter = [] if self._getter is None else [self._getter]
        for consumer in [*self._taking.consumers, *getter]:
            consumer.close()
        with self._transactions.turn():
            self._transactions.work_off()
            self._transactions.closed = True
        self._bell.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._transactions.close()

    # -- for its consumers -------------------------------------------------------------------------------------

    def acked(self, message: int) -> None:
        """The message is to be removed; ``has_acked`` follows."""
        self._transactions.acked.append(message)

    def has_acked(self, consumer: EmbeddedConsumer) -> None:
        """See to it that what was acknowledged is written some time, and that the consumer gets more."""
        count = len(self._transactions.acked)
        if consumer is self._getter or (count and count % ACKS == 0):
            self._transactions.order(lambda _file: None)
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
            self._transactions.ring_after([*file.topology.all_sessions(), self._bell.id])

        self._transactions.order(requeue)

    def reject(self, consumer: EmbeddedConsumer, message: int, reason: str) -> None:
        """Move a message to the dead letters."""

        def reject(file: BrokerFile) -> None:
            went_to = file.reject(message, reason)
            consumer.forget(message)
            self._transactions.ring_after([] if went_to is None else file.topology.sessions(went_to))
            if consumer.behind:
                self._transactions.ring_after([self._bell.id])

        self._transactions.order(reject)

    def remove(self, consumer: EmbeddedConsumer) -> None:
        """Take a consumer off its queue, and give back what it had."""

        def remove(file: BrokerFile) -> None:
            if consumer in self._taking.consumers:
                self._taking.consumers.remove(consumer)
            file.remove_consumer(consumer.id, list(consumer.unsettled))
            self._transactions.ring_after(file.topology.all_sessions())

        try:
            self._transactions.do(remove)
        except BrokerError as error:
            logger.warning("A consumer of %s could not say good-bye: %s", consumer.queue, error)

    # -- the broker's thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        next_tick = 0.0
        while not self._transactions.closed:
            try:
                now = time.monotonic()
                if now >= next_tick or self._transactions.has_dead:
                    next_tick = now + TICK
                    self._bury_dead()
                taken = self._take()
            except Exception as error:  # whatever it is, this thread lives on
                logger.error("The embedded broker at %s goes on after: %s", self.url, error)
                self._bell.wait(TICK)
                continue
            with self._transactions.gather():
                for consumer, delivery in taken:
                    consumer.deliver(delivery)
            if not self._taking.wants:
                acks = self._flush_at - time.monotonic() if self._transactions.acked else TICK
                self._bell.wait(max(0.0, min(acks, next_tick - time.monotonic())))

    def _take(self) -> list[tuple[EmbeddedConsumer, EmbeddedDelivery]]:
        """One look into the file, and what was left to this thread to do."""
        with self._transactions.turn():
            if self._transactions.closed:
                return []
            if self._transactions.has_orders or time.monotonic() >= self._flush_at:
                self._transactions.work_off()
                if self._transactions.acked:  # the disk is full, for example
                    self._flush_at = time.monotonic() + TICK
            taken = self._taking.look()
            if taken is None:
                try:
                    with self._transactions.transaction():
                        taken = self._taking.take(self._transactions.remove_acked)
                except BaseException:
                    self._taking.undo()
                    raise
            return [(consumer, consumer.take(claim, consumer.queue)) for consumer, claim in taken]

    def _bury_dead(self) -> None:
        """Remove the consumers of processes that are gone, and queues that outlived their expiry."""
        self._transactions.has_dead = False
        with self._transactions.turn():
            file = self._transactions.file
            if self._transactions.closed:
                return
            sessions = [session for session in file.sessions() if session != self._bell.id]
            dead = [session for session in sessions if not self._bell.alive(session)]
            if not dead and not file.has_expired_queues():
                return
            with self._transactions.transaction():
                for session in dead:
                    file.remove_session(session)
                file.delete_expired_queues()
                file.refresh()
            self._transactions.ring(file.topology.all_sessions())
