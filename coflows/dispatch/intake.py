"""What comes in: deliveries are opened, what the store knows of them is read at once, and they are put in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.codec.wire import decode
from coflows.dead_letters import read_opened
from coflows.dispatch.answers import recorded
from coflows.dispatch.job import Job, Source
from coflows.dispatch.sequencing import Sequencer
from coflows.endpoints import read
from coflows.errors import CoflowsError, StoreError
from coflows.model.layout import dead_key, done_key, metadata_key, order_key
from coflows.model.wire import Call, Cancel, DispatchPayload, Recall, Replay, read_payload
from coflows.parcel import Parcel
from coflows.session import Incoming, Session
from coflows.store.base import Store

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)


class Intake:
    """One thread at a time takes in what has come; ``deliver`` is for any."""

    def __init__(self, session: Session, store: Store, runner: Runner) -> None:
        self._session = session
        self._store = store
        self._runner = runner
        self._payloads: TypeAdapter[Call | Recall | Cancel | Replay] = TypeAdapter(DispatchPayload)
        self._waiting: deque[tuple[Delivery, Source]] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._open: dict[tuple[str, str, str], Job] = {}
        self._sequencer: Sequencer[Job] = Sequencer()
        self._flows: dict[int, set[str]] = {}

    def deliver(self, delivery: Delivery, source: Source, schedule: Callable[[Callable[[], None]], None]) -> None:
        """A delivery came. Never blocks: the work is done by what ``schedule`` calls."""
        with self._lock:
            self._waiting.append((delivery, source))
            if self._scheduled:
                return
            self._scheduled = True
        schedule(self._take_in)

    def ended(self, job: Job) -> None:
        """The job is over; when its message comes again, the store knows."""
        if self._open.get(job.key) is job:
            del self._open[job.key]

    def tick(self) -> None:
        """Let go on what has waited too long for an earlier message."""
        with self._taking:
            ready = self._sequencer.expire(time.monotonic())
        for job in ready:
            logger.warning("An earlier message than %s never came; going on without it.", job.incoming.message_id)
        self._runner.accept(ready)

    def forget(self, jobs: Iterable[Job], partition: int) -> None:
        """These jobs were given back: another worker may go on with them, and with all of their partition."""
        gone = set(jobs)
        with self._taking:
            for job in gone:
                self.ended(job)
            self._sequencer.withdraw(gone)
            self._sequencer.forget(self._flows.pop(partition, set()))

    # -- one thread at a time ----------------------------------------------------------------------------------

    def _take_in(self) -> None:
        while True:
            with self._lock:
                taken, self._waiting = self._waiting, deque()
                if not taken:
                    self._scheduled = False
                    return
            with self._taking:
                ready = self._read(taken)
            self._runner.accept(ready)

    def _read(self, taken: Iterable[tuple[Delivery, Source]]) -> list[Job]:
        jobs: list[Job] = []
        epochs: dict[Source, int | None] = {}
        try:
            for delivery, source in taken:
                if source not in epochs:
                    # The lease comes first: what is read before may be older than the last commit of who held it.
                    epochs[source] = None if source.lease is None else source.lease.take()
                self._open_parcel(delivery, source, epochs[source], jobs)
            self._look_up(jobs)
            self._retake(jobs)
        except StoreError as error:
            logger.error("The store could not be read; messages go back: %s", error)
            for job in jobs:
                self._open.pop(job.key, None)
            for source in {source for _, source in taken}:
                source.start_over()
            return []
        return self._in_order(jobs)

    def _open_parcel(self, delivery: Delivery, source: Source, epoch: int | None, jobs: list[Job]) -> None:
        try:
            opened = self._session.open(delivery.body)
            read_items = [self._session.read(opened.sender, item) for item in opened.items]
            payloads = [read_payload(self._payloads, incoming.value) for incoming in read_items]
        except CoflowsError as error:
            logger.warning("Rejected a message from %s: %s", delivery.queue, error)
            delivery.reject(f"{error.code}: {error}")
            return
        parcel = Parcel(delivery, len(payloads))
        for incoming, payload in zip(read_items, payloads, strict=True):
            replayed = None
            if isinstance(payload, Replay):
                replayed = payload.letter
                letter = self._letter(incoming, payload)
                if letter is None:
                    parcel.settle()
                    continue
                incoming, payload = letter
            if isinstance(payload, Call):
                lane = payload.flow_id if source.lease is not None else f"{incoming.message_id}.{incoming.sender}"
                job = Job(
                    parcel, incoming, payload, source, epoch, lane=lane, again=delivery.redelivered, letter=replayed
                )
                first = self._open.setdefault(job.key, job)
                if first is not job:
                    first.twins.append(parcel)
                    job.twin = True
                    jobs.append(job)
                elif source.track(job):
                    jobs.append(job)
                else:
                    self._open.pop(job.key, None)
            else:
                self._aside(incoming, payload)
                parcel.settle()

    def _letter(self, replay: Incoming, payload: Replay) -> tuple[Incoming, Call] | None:
        """The message of a dead letter, as it came first; only its owner may have it replayed."""
        entry = self._store.get(dead_key(payload.letter)) if replay.sender == self._session.user_id else None
        opened = None if entry is None else read_opened(entry.value)
        if opened is None:
            logger.info("Dead letter %s is not there (any more); it is not replayed.", payload.letter)
            return None
        value = decode(opened.payload, max_bytes=len(opened.payload))
        call = read_payload(self._payloads, value)
        assert isinstance(call, Call)
        return Incoming(opened.sender, opened.message_id, value, opened.payload), call

    def _aside(self, incoming: Incoming, payload: Recall | Cancel) -> None:
        """What is about a message, and no message itself."""
        job = self._open.get((incoming.sender, payload.flow_id, payload.message_id))
        if isinstance(payload, Recall):
            answer = recorded(self._session, self._store, payload, incoming.sender, unknown=job is None)
            self._runner.publish([answer])
        elif job is not None:
            job.cancelled = True
            if job.on_cancel is not None:
                job.on_cancel()

    def _look_up(self, jobs: list[Job]) -> None:
        keys: dict[str, None] = {}
        for job in jobs:
            flow_id, place = job.payload.flow_id, job.incoming.place
            keys[done_key(flow_id, job.incoming.message_id)] = None
            keys[metadata_key(flow_id)] = None
            if job.source.lease is not None:
                keys[job.source.lease.key] = None
            if place is not None and not self._sequencer.knows((flow_id, place.stream)):
                keys[order_key(flow_id, place.stream)] = None
        if not keys:
            return
        found = self._store.get_many(keys)
        for job in jobs:
            flow_id, place = job.payload.flow_id, job.incoming.place
            job.done = found.get(done_key(flow_id, job.incoming.message_id))
            job.metadata = found.get(metadata_key(flow_id))
            lease = job.source.lease
            if lease is not None:
                holder = found.get(lease.key)
                job.held = holder is not None and holder.version == job.epoch
            if place is not None and lease is not None and job.held:
                self._flows.setdefault(lease.partition, set()).add(flow_id)
                entry = found.get(order_key(flow_id, place.stream))
                self._sequencer.begin((flow_id, place.stream), 0 if entry is None else read(entry.value)["passed"])

    def _retake(self, jobs: list[Job]) -> None:
        """A connection that was lost may have given a partition to another worker and back, unnoticed: what is known of
        it here is too old then."""
        stale = {job.source for job in jobs if job.source.lease is not None and not job.held}
        for source in stale:
            assert source.lease is not None
            logger.info("Partition %d was another worker's meanwhile.", source.lease.partition)
            source.lease.lost()
            self._sequencer.forget(self._flows.pop(source.lease.partition, set()))
            self._runner.forget_flows(source.lease.partition)
            epoch = source.lease.take()
            again = [job for job in jobs if job.source is source]
            for job in again:
                job.epoch = epoch
            self._look_up(again)

    def _in_order(self, jobs: list[Job]) -> list[Job]:
        ready: list[Job] = []
        now = time.monotonic()
        for job in jobs:
            place = job.incoming.place
            if place is None or job.source.lease is None:
                ready += [] if job.twin else [job]
                continue
            key = (job.payload.flow_id, place.stream)
            if not self._sequencer.is_late(key, place.number):
                ready += self._sequencer.offer(key, place.number, None if job.twin else job, now)
            elif not job.twin:
                job.late = True
                ready.append(job)
        return ready
