"""Parks the messages whose turns take long, adopts those whose workers are gone, and keeps other turns off them."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from coflows.codec.wire import decode
from coflows.dispatch.job import Job, Source
from coflows.dispatch.membership import alive_workers
from coflows.dispatch.parking import Parked, ParkingLot, review
from coflows.dispatch.work import Work
from coflows.errors import CoflowsError, ConflictError, StoreError
from coflows.model.calls import Call
from coflows.quotas.accounts import Account
from coflows.session import Incoming
from coflows.store.base import Store

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)

AT_ONCE = 256
"""Messages that are parked in one commit."""


class Custody:
    """``tick`` is for one thread, the rest for any."""

    def __init__(self, store: Store, lot: ParkingLot, dispatch_point: str, runner: Runner, after: float) -> None:
        self.lot = lot
        self.sources: dict[int | None, Source] = {}
        """The queues that messages come from, by partition."""
        self._store = store
        self._point = dispatch_point
        self._runner = runner
        self._after = after
        self._mine: dict[str, Job] = {}
        self._others: dict[str, Parked] = {}
        """What other workers have parked, by key, less the payloads: those may be large."""
        self._held: set[str] = set()
        self._changed = threading.Condition()

    def tick(self, works: Iterable[Work]) -> None:
        """To be called about once a second, with what is being worked off."""
        overdue = time.monotonic() - self._after
        try:
            late = self._fitting([work for work in works if work.job is not None and work.since < overdue])
            for first in range(0, len(late), AT_ONCE):
                self._park(late[first : first + AT_ONCE])
            self._look_after_others()
            self._look_for_cancels()
        except StoreError as error:
            logger.warning("Could not look after parked messages; trying again: %s", error)

    def meet(self, partition: int) -> list[Parked]:
        """This worker has just got the partition: the messages of it that are parked. Instances whose message another
        worker has are held from now on."""
        parked = [Parked.decode(entry.value) for entry in self.lot.entries(partition)]
        with self._changed:
            foreign = {one.flow_id for one in parked if one.worker != self.lot.worker}
            self._held |= foreign
        for flow_id in foreign:
            self._runner.hold(flow_id)
        return parked

    def over(self, job: Job) -> None:
        """A parked message is done with; what its turn sent is out, so its record goes."""
        claim = job.parked
        self.lost(job)
        if claim is None:
            return
        try:
            self.lot.leave(claim)
        except ConflictError:
            logger.debug("%s is another worker's by now.", claim.key)
        except StoreError as error:
            logger.warning("The record %s stays until it is looked at again: %s", claim.key, error)

    def lost(self, job: Job) -> None:
        """A parked message is not worked on here any more."""
        if job.parked is not None:
            with self._changed:
                self._mine.pop(job.parked.key, None)
                self._changed.notify_all()

    def wait(self, seconds: float) -> bool:
        """Wait until this worker has no parked message any more; False when time is over first."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._mine, seconds)

    # -- own ones ----------------------------------------------------------------------------------------------

    def _fitting(self, works: Iterable[Work]) -> list[Work]:
        """Those of the works whose messages are to be parked. Of one sender's as many as may be in hand; what is beyond
        that stays with the broker, and counts among what is taken of its queue."""
        with self._changed:
            mine = list(self._mine.values())
        kept: Counter[Account | None] = Counter()
        for one in mine:
            kept[one.account] += one.incoming.weight
        fitting: list[Work] = []
        for work in works:
            if (job := work.job) is None or job.parked is not None:
                continue
            account, weight = job.account, job.incoming.weight
            if account is None or not kept[account] or kept[account] + weight <= account.room:
                kept[account] += weight
                fitting.append(work)
        return fitting

    def _park(self, works: list[Work]) -> None:
        """Park what is being worked on there, in one commit; one by one when it is refused."""
        parked: list[Job] = []
        with ExitStack() as locks:
            for work in works:
                locks.enter_context(work.draft.lock)  # Its turn cannot end meanwhile.
            jobs = [work.job for work in works if work.job is not None and work.job.parked is None]
            try:
                claims = self.lot.park([(self._message(job), job.claim) for job in jobs])
            except ConflictError:
                claims = []  # Another worker has one; what that turn commits will be refused.
            for job, claim in zip(jobs, claims, strict=False):
                job.parked = claim
                parked.append(job)
            with self._changed:
                self._mine |= {claim.key: job for job, claim in zip(jobs, claims, strict=False)}
        if not claims and len(works) > 1:
            for work in works:
                self._park([work])
        sources: dict[Source, list[Job]] = {}
        for job in parked:
            logger.info("Message %s takes long; it is parked.", job.incoming.message_id)
            twin = job.settle()
            if twin is not None:
                twin.settle()
            sources.setdefault(job.source, []).append(job)
        for source, settled in sources.items():
            source.settled(settled)

    def _message(self, job: Job) -> Parked:
        incoming, lease = job.incoming, job.source.lease
        return Parked(
            self.lot.worker,
            None if lease is None else lease.partition,
            incoming.sender,
            incoming.message_id,
            job.payload.flow_id,
            incoming.data,
            incoming.place,
            job.letter,
        )

    def _look_for_cancels(self) -> None:
        with self._changed:
            mine = dict(self._mine)
        for key in self.lot.cancelled(job.parked for job in mine.values() if job.parked is not None):
            mine[key].cancel()

    # -- those of others ---------------------------------------------------------------------------------------

    def _look_after_others(self) -> None:
        with self._changed:
            mine = set(self._mine)
        known, self._others = self._others, {}
        for key in self.lot.all_keys():
            one = None if key in mine else known.get(key) or self.lot.read(key)
            if one is not None and one.worker != self.lot.worker:
                self._others[key] = one
        alive = alive_workers(self._store, self._point) if self._others else ()
        found = review(self._others.items(), self.lot.worker, alive)
        with self._changed:
            free = self._held - found.held
            held = found.held - self._held
            self._held = set(found.held)
        for flow_id in held:
            self._runner.hold(flow_id)
        for flow_id in free:
            self._runner.let_loose(flow_id)
        for key in found.adopt:
            self._adopt(key, self._others.pop(key))

    def _adopt(self, key: str, left: Parked) -> None:
        try:
            message, claim = self.lot.adopt(key, left.worker)
        except ConflictError:
            return
        logger.warning("The worker of message %s is gone; it is worked on here.", message.message_id)
        try:
            value = decode(message.payload, max_bytes=len(message.payload))
            call = Call.from_dict(value)
        except CoflowsError as error:
            logger.error("Parked message %s cannot be read, and stays: %s", key, error)
            return
        job = Job(
            None,
            Incoming(message.sender, message.message_id, value, message.payload, message.place),
            call,
            self.sources[message.partition],
            (message.sender, message.flow_id, message.message_id),
            fresh=False,
            lane=message.flow_id if message.partition is not None else f"{message.message_id}.{message.sender}",
            again=True,
            letter=message.letter,
            parked=claim,
        )
        with self._changed:
            self._mine[claim.key] = job
            self._held.discard(message.flow_id)
        self._runner.adopt(job)
