"""What comes in: what the store knows of opened messages is read at once, and they are put in order."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.codec.wire import decode
from coflows.dead_letters import read_opened
from coflows.dispatch.answers import recorded
from coflows.dispatch.custody import Custody
from coflows.dispatch.in_hand import InHand
from coflows.dispatch.job import Job, Source
from coflows.dispatch.lease import Lease
from coflows.dispatch.sequencing import Sequencer
from coflows.dispatch.turnstile import Turnstile
from coflows.endpoints import read
from coflows.errors import StoreError
from coflows.model.calls import Call
from coflows.model.layout import dead_key, done_key, metadata_key, order_key
from coflows.model.wire import Cancel, DispatchPayload, Recall, Replay, read_payload
from coflows.opened import ROUND, Opened, Read
from coflows.session import Incoming, Session
from coflows.store.base import Store

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)

Payload = Call | Recall | Cancel | Replay
MAX_TURNED_AWAY = 10_000
"""Streams of strangers that are remembered."""
SPARE = 1_000
"""Instances that are remembered though no stream of theirs is: callers may mount and delete for ever."""


class Intake:
    """One thread at a time takes in what has come; ``deliver`` is for any."""

    def __init__(
        self,
        session: Session,
        store: Store,
        runner: Runner,
        custody: Custody,
        turnstile: Turnstile,
        schedule: Callable[..., None],
    ) -> None:
        self._schedule = schedule
        self._turnstile = turnstile
        self._custody = custody
        self._session = session
        self._store = store
        self._runner = runner
        self._payloads: TypeAdapter[Recall | Cancel | Replay] = TypeAdapter(DispatchPayload)
        self._opened: Opened[Source, Payload] = Opened(session, self._payload_of)
        self._waiting: deque[tuple[Delivery, Source]] = deque()
        self._scheduled = self._more = False
        self._lock = threading.Lock()
        self._taking = threading.Lock()
        self._letting = threading.Lock()
        """Held from when messages are taken in until they are let in: nobody is overtaken in between."""
        self._in_hand = InHand()
        self._sequencer: Sequencer[Job] = Sequencer()
        self._flows: dict[int, set[str]] = {}
        """Of each partition, the instances with streams."""
        self._parked: dict[tuple[str, str], int] = {}
        """The highest number of each stream that is parked."""
        self._turned_away: OrderedDict[tuple[str, str], int] = OrderedDict()
        """The highest number of a stream's that a stranger was refused: once he is let in, nothing waits for it."""

    @property
    def open_jobs(self) -> int:
        """How many messages are in hand."""
        return len(self._in_hand)

    def deliver(self, delivery: Delivery, source: Source) -> None:
        """A delivery came. Never blocks."""
        with self._lock:
            self._waiting.append((delivery, source))
        self.go_on()

    def go_on(self) -> None:
        """There may be more to take in. Never blocks."""
        with self._lock:
            self._more = True
            if self._scheduled:
                return
            self._scheduled = True
        self._schedule(self._take_in)

    def adopt(self, job: Job) -> None:
        """A job that did not come in a delivery of this worker's."""
        self._turnstile.adopt(job)
        with self._taking:
            self._in_hand.put(job)

    def repeat(self, twin: Job) -> Job | None:
        """See InHand."""
        return self._in_hand.repeat(twin)

    def begin_again(self, job: Job) -> None:
        """Work off what ``repeat`` gave: its sender asks again. What was refused is refused again, or judged anew where
        there is no order in which its place is passed."""
        if self._turnstile.has_refused(job):
            job.late = job.incoming.place is not None
            self.let_in([job])
        else:
            job.caller = self._turnstile.caller_of(job)
            self._runner.accept([job])

    def let_in(self, ready: Iterable[Job], *, next: bool = False) -> None:
        """Begin those that may be worked off; the others are answered."""
        admitted, refused = self._turnstile.admit(ready)
        if refused:
            self._runner.finish(refused)
        self._runner.accept(admitted, next=next)

    def _let_in(self, ready: Sequence[Job], *, next: bool = False) -> None:
        """``let_in``; what fails at it is our own mistake, which must not keep out all that comes later."""
        try:
            self.let_in(ready, next=next)
        except Exception:
            logger.exception("Messages could not be let in; they go back.")
            for source in {job.source for job in ready}:
                source.start_over()

    def ended(self, job: Job) -> None:
        """The job is over; when its message comes again, the store knows."""
        self._in_hand.leave(job)
        if job.account is not None:
            self._turnstile.leave((job,))
        if job.again:
            self._runner.quarantine.leave(job)

    def tick(self) -> None:
        """Let go on what has waited too long for an earlier message."""
        now = time.monotonic()
        self._turnstile.tick(now)
        with self._letting:
            with self._taking:
                ready = self._sequencer.expire(now)
                if sum(map(len, self._flows.values())) > len(self._sequencer) + SPARE:
                    known = self._sequencer.instances()
                    for flows in self._flows.values():
                        flows &= known
            for job in ready:
                logger.warning("An earlier message than %s never came; going on without it.", job.incoming.message_id)
            self._let_in(ready)

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
        with self._letting:
            with self._lock:
                taken, self._waiting, self._more = self._waiting, deque(), False
            with self._taking:
                ready = self._read(taken)
                left = self._opened.goes_on or (bool(taken) and not self._opened.full)
            with self._lock:
                taken.extend(self._waiting)
                self._waiting = taken
                again = self._scheduled = left or self._more
            self._let_in(ready, next=not again)
        if again:
            # What was taken in goes first: others' turns are in it.
            self._schedule(self._take_in, first=not left)

    def _read(self, taken: deque[tuple[Delivery, Source]]) -> list[Job]:
        """The next jobs of what was taken, which is left what is for later."""
        jobs: list[Job] = []
        epochs: dict[Source, int | None] = {}
        sources: set[Source] = set()
        try:
            opened = 0
            while taken and opened < ROUND and not self._opened.full:
                delivery, source = taken.popleft()
                sources.add(source)
                if not source.defer(delivery):
                    opened += 1
                    self._opened.add(delivery, source)
                    self._runner.beat()
            pieces = self._opened.next()
            sources.update(one.piece.source for one in pieces)
            for one in pieces:
                source = one.piece.source
                if source not in epochs:
                    # The lease comes first: what is read before may be older than the last commit of who held it.
                    epochs[source] = None if source.lease is None else self._take(source.lease)
                self._begin(one, epochs[source], jobs)
                self._runner.beat()
            self._look_up(jobs)
            self._runner.beat()
            self._retake(jobs)
            return self._in_order(jobs)
        except Exception as error:
            if isinstance(error, StoreError):
                logger.error("The store could not be read; messages go back: %s", error)
            else:
                logger.exception("Messages could not be taken in; they go back.")
            for job in jobs:
                self._in_hand.leave(job)
            for source in sources:
                source.start_over()
            return []

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

    def _begin(self, read_piece: Read[Source, Payload], epoch: int | None, jobs: list[Job]) -> None:
        source, parcel = read_piece.piece.source, read_piece.piece.parcel
        delivery = parcel.delivery
        partitioned = source.lease is not None
        own: list[Job] = []
        for incoming, payload in read_piece.messages:
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
            if self._in_hand.join(job):
                own.append(job)
            jobs.append(job)
        if not source.track(own):
            for job in own:
                self._in_hand.leave(job)
                jobs.remove(job)

    def _payload_of(self, incoming: Incoming) -> Payload:
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
        job = self._in_hand.find((incoming.sender, flow_id, message_id))
        if isinstance(payload, Recall):
            if not self._turnstile.may_ask(incoming.sender):
                return  # He asks again.
            answer = self._turnstile.refusal(payload, incoming.sender)
            if answer is None:
                unknown = job is None and not self._custody.lot.has(partition, flow_id, message_id, incoming.sender)
                answer = recorded(self._session, self._store, payload, incoming.sender, unknown=unknown)
            self._turnstile.asked(incoming.sender, len(answer.data))
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
