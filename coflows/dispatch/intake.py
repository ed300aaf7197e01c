"""What comes in: deliveries are opened, what the store knows of them is read at once, and they are put in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.codec.wire import decode
from coflows.dead_letters import read_opened
from coflows.dispatch.answers import recorded
from coflows.dispatch.custody import Custody
from coflows.dispatch.job import Job, Source
from coflows.dispatch.lease import Lease
from coflows.dispatch.sequencing import Sequencer
from coflows.endpoints import read
from coflows.errors import CoflowsError, StoreError
from coflows.model.calls import Call
from coflows.model.layout import dead_key, done_key, metadata_key, order_key
from coflows.model.wire import Cancel, DispatchPayload, Recall, Replay, read_payload
from coflows.parcel import Parcel
from coflows.session import Incoming, Session
from coflows.store.base import Store

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)

MAX_TURNED_AWAY = 10_000
"""Streams of strangers that are remembered."""


class Intake:
    """One thread at a time takes in what has come; ``deliver`` is for any."""

    def __init__(
        self,
        session: Session,
        store: Store,
        runner: Runner,
        custody: Custody,
        schedule: Callable[[Callable[[], None]], None],
    ) -> None:
        self._schedule = schedule
        self._custody = custody
        self._session = session
        self._store = store
        self._runner = runner
        self._payloads: TypeAdapter[Recall | Cancel | Replay] = TypeAdapter(DispatchPayload)
        self._waiting: deque[tuple[Delivery, Source]] = deque()
        self._scheduled = False
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._open: dict[tuple[str, str, str], Job] = {}
        self._sequencer: Sequencer[Job] = Sequencer()
        self._flows: dict[int, set[str]] = {}
        self._parked: dict[tuple[str, str], int] = {}
        """The highest number of each stream that is parked."""
        self._turned_away: OrderedDict[tuple[str, str], int] = OrderedDict()
        """The highest number of a stream's that a stranger was refused: once he is let in, nothing waits for it."""

    @property
    def open_jobs(self) -> int:
        """How many messages are in hand."""
        return len(self._open)

    def deliver(self, delivery: Delivery, source: Source) -> None:
        """A delivery came. Never blocks."""
        with self._lock:
            self._waiting.append((delivery, source))
            if self._scheduled:
                return
            self._scheduled = True
        self._schedule(self._take_in)

    def adopt(self, job: Job) -> None:
        """A job that did not come in a delivery of this worker's."""
        with self._taking:
            self._open[job.key] = job

    def repeat(self, twin: Job) -> Job | None:
        """A message came again while it was worked off, and that is over: look at it as one that comes now. None when
        it has come once more by now."""
        first = self._open.setdefault(twin.key, twin)
        if first is not twin:
            first.twins.append(twin)
            return None
        twin.twin, twin.fresh = False, False
        return twin

    def ended(self, job: Job) -> None:
        """The job is over; when its message comes again, the store knows."""
        if self._open.get(job.key) is job:
            del self._open[job.key]
        if job.again:
            self._runner.quarantine.leave(job)

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
            for job in self._sequencer.forget(self._flows.pop(partition, set())):
                self.ended(job)

    # -- one thread at a time ----------------------------------------------------------------------------------

    def _take_in(self) -> None:
        with self._lock:
            taken, self._waiting = self._waiting, deque()
        with self._taking:
            ready = self._read(taken)
        with self._lock:
            again = self._scheduled = bool(self._waiting)
        self._runner.accept(ready, next=not again)
        if again:
            self._schedule(self._take_in)

    def _read(self, taken: Iterable[tuple[Delivery, Source]]) -> list[Job]:
        jobs: list[Job] = []
        epochs: dict[Source, int | None] = {}
        try:
            for delivery, source in taken:
                if source.defer(delivery):
                    continue
                if source not in epochs:
                    # The lease comes first: what is read before may be older than the last commit of who held it.
                    epochs[source] = None if source.lease is None else self._take(source.lease)
                self._open_parcel(delivery, source, epochs[source], jobs)
                self._runner.beat()
            self._look_up(jobs)
            self._runner.beat()
            self._retake(jobs)
        except Exception as error:
            if isinstance(error, StoreError):
                logger.error("The store could not be read; messages go back: %s", error)
            else:
                logger.exception("Messages could not be taken in; they go back.")
            for job in jobs:
                self._open.pop(job.key, None)
            for source in {source for _, source in taken}:
                source.start_over()
            return []
        return self._in_order(jobs)

    def _take(self, lease: Lease) -> int:
        fresh = not lease.taken
        epoch = lease.take()
        if fresh:
            # A turn that was committed when its partition was given away already may have left its flow here.
            self._runner.forget_flows(lease.partition)
            self._runner.retries.meet()
            for one in self._custody.meet(lease.partition):
                if one.place is not None:
                    key = (one.flow_id, one.place.stream)
                    self._parked[key] = max(self._parked.get(key, 0), one.place.number)
        return epoch

    def _open_parcel(self, delivery: Delivery, source: Source, epoch: int | None, jobs: list[Job]) -> None:
        try:
            opened = self._session.open(delivery.body)
            read_items = [(one, self._payload(one)) for one in self._session.read_all(opened)]
        except CoflowsError as error:
            logger.warning("Rejected a message from %s: %s", delivery.queue, error)
            self._session.refusals.count(error)
            delivery.reject(f"{error.code}: {error}")
            return
        except Exception as error:  # A mistake of ours, which must not cost the messages beside it.
            logger.exception("A message from %s could not be read; it is rejected.", delivery.queue)
            delivery.reject(f"internal: {error!r}")
            return
        parcel = Parcel(delivery, len(read_items))
        partitioned = source.lease is not None
        own: list[Job] = []
        for incoming, payload in read_items:
            replayed = None
            if isinstance(payload, Replay):
                replayed = payload.letter
                letter = self._letter(incoming, payload)
                if letter is None:
                    parcel.settle()
                    continue
                incoming, payload = letter
            if not isinstance(payload, Call):
                self._aside(incoming, payload, source.lease.partition if source.lease is not None else None)
                parcel.settle()
                continue
            sender, message_id = incoming.sender, incoming.message_id
            key = (sender, payload.flow_id, message_id)
            lane = payload.flow_id if partitioned else f"{message_id}.{sender}"
            job = Job(
                parcel, incoming, payload, source, key, epoch, lane=lane, again=delivery.redelivered, letter=replayed
            )
            first = self._open.setdefault(key, job)
            if first is job:
                own.append(job)
            else:
                job.twin = True
                if first.parked is None:
                    first.twins.append(job)
                else:
                    parcel.settle()
            jobs.append(job)
        if not source.track(own):
            for job in own:
                self._open.pop(job.key, None)
                jobs.remove(job)

    def _payload(self, incoming: Incoming) -> Call | Recall | Cancel | Replay:
        value = incoming.value
        if isinstance(value, dict) and value.get("kind") == "call":
            return Call.from_dict(value)
        return read_payload(self._payloads, value)

    def _letter(self, replay: Incoming, payload: Replay) -> tuple[Incoming, Call] | None:
        """The message of a dead letter, as it came first; only its owner may have it replayed."""
        entry = self._store.get(dead_key(payload.letter)) if replay.sender == self._session.user_id else None
        opened = None if entry is None else read_opened(entry.value)
        if opened is None:
            logger.info("Dead letter %s is not there (any more); it is not replayed.", payload.letter)
            return None
        value = decode(opened.payload, max_bytes=len(opened.payload))
        return Incoming(opened.sender, opened.message_id, value, opened.payload), Call.from_dict(value)

    def _aside(self, incoming: Incoming, payload: Recall | Cancel, partition: int | None) -> None:
        """What is about a message, and no message itself."""
        flow_id, message_id = payload.flow_id, payload.message_id
        job = self._open.get((incoming.sender, flow_id, message_id))
        if isinstance(payload, Recall):
            unknown = job is None and not self._custody.lot.has(partition, flow_id, message_id, incoming.sender)
            answer = recorded(self._session, self._store, payload, incoming.sender, unknown=unknown)
            self._runner.outbox.send_one(answer)
        elif job is not None:
            job.cancel()
        else:
            self._custody.lot.cancel(partition, flow_id, message_id, incoming.sender)

    def _look_up(self, jobs: list[Job]) -> None:
        keys: dict[str, None] = {}
        for job in jobs:
            flow_id, place, lease = job.payload.flow_id, job.incoming.place, job.source.lease
            keys[done_key(flow_id, job.incoming.message_id)] = None
            keys[metadata_key(flow_id)] = None
            if lease is not None:
                keys[lease.key] = None
                if place is not None and not self._sequencer.knows((flow_id, place.stream)):
                    keys[order_key(flow_id, place.stream)] = None
        if not keys:
            return
        found = self._store.get_many(keys)
        late: dict[str, Job] = {}
        for job in jobs:
            flow_id, place, lease = job.payload.flow_id, job.incoming.place, job.source.lease
            job.done = found.get(done_key(flow_id, job.incoming.message_id))
            job.metadata = found.get(metadata_key(flow_id))
            if lease is None:
                continue
            if place is None or not self._sequencer.knows((flow_id, place.stream)):
                # Who is only refused waits for no turn of the instance: how long that takes would tell of it.
                job.stranger = self._runner.gate.is_stranger(job)
                job.lane = f"{job.incoming.message_id}.{job.incoming.sender}" if job.stranger else flow_id
            holder = found.get(lease.key)
            job.held = holder is not None and holder.version == job.epoch
            if place is not None and job.held:
                key = (flow_id, place.stream)
                if not self._sequencer.knows(key):
                    if job.stranger:  # There is no order: it is only refused.
                        self._turn_away(key, place.number)
                        continue
                    self._flows.setdefault(lease.partition, set()).add(flow_id)
                    entry = found.get(order_key(flow_id, place.stream))
                    passed = 0 if entry is None else read(entry.value)["passed"]
                    passed = max(passed, self._parked.pop(key, 0), self._turned_away.pop(key, 0))
                    self._sequencer.begin(key, passed)
                if job.done is None and self._sequencer.is_late(key, place.number):
                    late[self._custody.lot.key(job.key, lease.partition)] = job
        for key_found in self._store.get_many(late) if late else ():
            late[key_found].elsewhere = True

    def _turn_away(self, key: tuple[str, str], number: int) -> None:
        self._turned_away[key] = max(number, self._turned_away.pop(key, 0))
        if len(self._turned_away) > MAX_TURNED_AWAY:
            self._turned_away.popitem(last=False)

    def _retake(self, jobs: list[Job]) -> None:
        """A connection that was lost may have given a partition to another worker and back, unnoticed: what is known of
        it here is too old then."""
        stale = {job.source for job in jobs if job.source.lease is not None and not job.held}
        for source in stale:
            assert source.lease is not None
            logger.info("Partition %d was another worker's meanwhile.", source.lease.partition)
            source.lease.lost()
            # What waited there comes again, as a twin: it is put in order anew, before what has just come.
            waiting = self._sequencer.forget(self._flows.pop(source.lease.partition, set()))
            self._runner.forget_flows(source.lease.partition)
            epoch = self._take(source.lease)
            jobs[:0] = waiting
            again = [job for job in jobs if job.source is source]
            for job in again:
                job.epoch = epoch
            self._look_up(again)

    def _in_order(self, jobs: list[Job]) -> list[Job]:
        ready: list[Job] = []
        now = time.monotonic()
        for job in jobs:
            place = job.incoming.place
            key = None if place is None or job.source.lease is None else (job.payload.flow_id, place.stream)
            if place is None or key is None or not self._sequencer.knows(key):
                ready += [] if job.twin else [job]
                continue
            if not self._sequencer.is_late(key, place.number):
                ready += self._sequencer.offer(key, place.number, None if job.twin else job, now, job.incoming.weight)
            elif job.elsewhere and not job.twin:
                self._runner.settle([job], None)
            elif not job.twin:
                job.late = True
                ready.append(job)
        return ready
