"""Transactions on the embedded broker's file: done by whoever asks when he can at once, else by who has the file."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from coflows.broker.embedded_file import BrokerFile
from coflows.broker.embedded_log import WriteAheadLog
from coflows.doorbell import Doorbell
from coflows.errors import BrokerError, BrokerUnavailableError, CoflowsError
from coflows.ownership import check_owner

logger = logging.getLogger(__name__)

ACKS = 64
"""Acknowledgements that are waited for before they are written."""
BACKLOG = 4
"""Messages that wait for the disk to begin with them when others begin to gather."""
GATHERED = 32
"""Orders that are gathered at most."""
_TRIES = 4
_PAUSE = 0.00005
Result = TypeVar("Result")


@dataclass(slots=True)
class Publish:
    """A message to be appended, and who waits for it."""

    queue: str
    body: bytes
    future: Future[None]
    error: CoflowsError | None = None


Order = Publish | Callable[[BrokerFile], None]


class Transactions:
    """Thread-safe. One thread must call ``work_off`` whenever ``bell`` is rung: it does what others could not do
    without waiting for another process. Raises BrokerUnavailableError when the folder cannot be used."""

    def __init__(self, directory: Path, url: str) -> None:
        self.url = url
        self.closed = False
        self.has_dead = True
        """Whether some process that was to be rung is gone."""
        self.acked: deque[int] = deque()
        """Messages to be removed with some transaction soon."""
        self._removing: list[int] = []
        self._orders: deque[Order] = deque()
        self._gathering: set[int] = set()
        self._to_ring: set[str] = set()
        self._turn = threading.Lock()
        """Who holds it uses the file, and what is described as belonging to him."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_owner(directory)
            self._lock_file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with self._file_lock():
                self.file = BrokerFile(directory / "broker.db")
                self.file.refresh()
            self._log = WriteAheadLog(directory / "broker.db-wal", self.gather)
            self.bell = Doorbell(directory)
        except (OSError, sqlite3.Error) as error:
            raise BrokerUnavailableError(
                f"Cannot use {directory} as an embedded broker: {error}.",
                hint="Give a folder that you may write, as embedded:///folder or COFLOWS_HOME.",
            ) from error

    def order(self, order: Order) -> None:
        """Do it in the next transaction: now, in this thread, unless the file is being used, or this thread is at
        something that may order more, or many wait for the disk: then by the thread that tells them. A closure must
        bear being called again, should the transaction fail."""
        self._orders.append(order)
        gathers = threading.get_ident() in self._gathering or self._log.backlog >= BACKLOG
        if not gathers or len(self._orders) >= GATHERED:
            self._work_off_now()

    @contextlib.contextmanager
    def gather(self) -> Iterator[None]:
        """What this thread orders meanwhile is done together."""
        me = threading.get_ident()
        self._gathering.add(me)
        try:
            yield
        finally:
            self._gathering.discard(me)
            self._work_off_now()

    def do(self, work: Callable[[BrokerFile], Result], *, durable: bool = False) -> Result:
        """Do ``work`` in a transaction, after what was ordered before; ``durable``: on disk when this returns."""
        with self.turn():
            if self.closed:
                raise self._closed_error()
            self.work_off()
            with self.transaction():
                outcome = work(self.file)
            self.ring()
            if durable:
                self._log.sync()
        return outcome

    def ring(self, bells: Iterable[str] = ()) -> None:
        """Wake these, and those for whom there is something since the last transaction. Called by who has the turn."""
        self._to_ring.update(bells)
        if self._to_ring:
            to_ring, self._to_ring = self._to_ring, set()
            if not self.bell.ring(to_ring):
                self.has_dead = True
                self.bell.wake()

    def ring_after(self, bells: Iterable[str]) -> None:
        """For work inside a transaction: wake these when it is committed."""
        self._to_ring.update(bells)

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Have the file."""
        with self._turn:
            yield
        if self._orders:  # by who found it used
            self.bell.wake()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """For who has the turn: wait for other processes, begin, read what has changed, commit. Raises CoflowsErrors
        that happen in it, and BrokerError for everything else."""
        with self._translated(), self._file_lock(), self._begun():
            yield

    def remove_acked(self) -> None:
        """Write what was acknowledged, in a transaction."""
        self._removing = [self.acked.popleft() for _ in range(len(self.acked))]
        self.file.remove(self._removing)

    def work_off(self) -> None:
        """Do what was ordered, and write what was acknowledged, if anything was; called by who has the turn."""
        if self._orders or self.acked:
            self._work_off(waits=True)

    @property
    def has_orders(self) -> bool:
        """Whether somebody left work to who calls ``work_off``."""
        return bool(self._orders)

    def close(self) -> None:
        """Let go, after what was committed is on disk; who waits for something else is told. ``closed`` was set, by
        who had the turn, and nobody else uses the file any more."""
        self._log.close()
        self._refuse()
        self.bell.close()
        self.file.connection.close()
        os.close(self._lock_file)

    # -- inside ------------------------------------------------------------------------------------------------

    def _work_off_now(self) -> None:
        while self._orders and self._turn.acquire(blocking=False):
            try:
                done = self._work_off(waits=False)
            finally:
                self._turn.release()
            if not done:
                self.bell.wake()
                return

    def _work_off(self, *, waits: bool) -> bool:
        """Whether it was not left undone because another process has the file, and ``waits`` is False."""
        if self.closed:
            self._refuse()
            return True
        if not waits and not self._lock_at_once():
            return False
        orders = [self._orders.popleft() for _ in range(len(self._orders))]
        try:
            with self._translated(), self._file_lock() if waits else self._unlocking():
                if len(orders) != 1 or len(self.acked) >= ACKS or not self._publish_one(orders[0]):
                    with self._begun():
                        self._apply(orders)
        except BrokerError as error:
            self._failed(orders, error)
        self.ring()
        for order in orders:
            if isinstance(order, Publish):
                self._log.confirm(order.future, order.error)
        return True

    def _publish_one(self, order: Order) -> bool:
        """The quick way, in most cases; whether it was possible."""
        if not isinstance(order, Publish):
            return False
        queue = self.file.publish_one(order.queue, order.body)
        if queue is None:
            return False
        self.ring_after(self.file.topology.sessions(queue))
        return True

    def _apply(self, orders: list[Order]) -> None:
        self.remove_acked()
        for order in orders:
            if not isinstance(order, Publish):
                order(self.file)
                continue
            try:
                queue = self.file.publish(order.queue, order.body)
                self.ring_after(self.file.topology.sessions(queue))
            except CoflowsError as error:
                order.error = error

    def _failed(self, orders: list[Order], problem: BrokerError) -> None:
        logger.error("%s", problem)
        for order in reversed(orders):
            if isinstance(order, Publish):
                order.error = problem
            else:
                self._orders.appendleft(order)  # A message given back stays with this process until that works.

    def _refuse(self) -> None:
        while self._orders:
            order = self._orders.popleft()
            if isinstance(order, Publish):
                order.future.set_exception(self._closed_error())

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except CoflowsError:
            raise
        except Exception as error:  # whatever it is, those who wait are told
            text = f"The embedded broker at {self.url} failed: {error}."
            raise BrokerError(text, hint="Is the disk full?") from error

    @contextlib.contextmanager
    def _begun(self) -> Iterator[None]:
        connection = self.file.connection
        connection.execute("BEGIN IMMEDIATE")
        self._removing = []
        try:
            self.file.refresh()
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
        with self._unlocking():
            yield

    @contextlib.contextmanager
    def _unlocking(self) -> Iterator[None]:
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

    def _closed_error(self) -> BrokerUnavailableError:
        return BrokerUnavailableError(f"The broker object of {self.url} is closed.", hint="Connect again.")
