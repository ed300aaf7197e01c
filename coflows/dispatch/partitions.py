"""The queues that feed a runner: consumed, handed on without loss or disorder, and given back on stop."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from coflows.broker.base import Consumer, Delivery
from coflows.broker.topology import dispatch_queue
from coflows.client import Client
from coflows.dispatch.job import Job
from coflows.dispatch.lease import Lease
from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)

PREFETCH = 1000
MAX_JOBS = 20_000
MAX_BYTES = 16 * 2**20
"""Messages of one queue, and bytes that they take in memory, that are opened at a time: what comes then stays sealed
until half of them are done. (A delivery holds up to a thousand.)"""
MAX_SEALED = 64 * 2**20
"""Bytes of deliveries of one queue that came and are not opened. Beyond it all goes back, and fewer are taken at a time
from then on."""
MIN_PREFETCH = 16
"""Deliveries that are taken at a time however large they are: what waits for another one has to let that in."""
HAND_ON_WAIT = 5.0
"""Seconds that a hand-over waits for running turns. One that takes longer is run again by whoever has the partition
then; only one of the two can commit."""
START_OVER_PAUSE = 0.5


def fitting(prefetch: int, largest: int) -> int:
    """How many deliveries of at most ``largest`` bytes to take at a time, rather than ``prefetch``."""
    return min(prefetch, max(MIN_PREFETCH, MAX_SEALED // max(largest, 1)))


class PartitionFeed:
    """One partition of a dispatch point, or (``lease`` is None) its queue of parallel endpoints. Thread-safe."""

    def __init__(
        self,
        cl: Client,
        dispatch_point: str,
        partition: int | None,
        runner: Runner,
        worker: str,
        prefetch: int = PREFETCH,
    ) -> None:
        self.partition = partition
        self._lease = None if partition is None else Lease(cl.store, worker, dispatch_point, partition)
        self._queue = dispatch_queue(cl.user_id, dispatch_point, partition)
        self._cl = cl
        self._prefetch = prefetch
        self._runner = runner
        self._consumer: Consumer | None = None
        self._jobs: dict[Job, None] = {}
        self._bytes = 0
        self._unopened: OrderedDict[Delivery, None] = OrderedDict()
        """What has come from this consumer and is not opened, in its order; what came from an earlier one has gone
        back."""
        self._deferred: set[Delivery] = set()
        """Those of it that the runner does not have."""
        self._sealed = self._largest = 0
        self._era = 0
        self._holding = False
        self._stopped = False
        self._changed = threading.Condition()
        self._cycling = threading.Lock()

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._queue.name

    @property
    def lease(self) -> Lease | None:
        """The right to commit for this partition."""
        return self._lease

    @property
    def era(self) -> int:
        """See Source."""
        return self._era

    @property
    def full(self) -> bool:
        """See Source."""
        return len(self._jobs) >= MAX_JOBS or self._bytes >= MAX_BYTES

    def open(self) -> None:
        """Consume. Raises what the broker raises."""
        self._consumer = self._cl.broker.consume(self._queue.name, self._on_delivery, prefetch=self._prefetch)

    def cycle(self) -> None:
        """Stop, give back what is not done, and line up again as the last consumer: another worker that waits gets
        the partition, else it comes back to this one."""
        with self._cycling:
            if not self._stopped:
                try:
                    self._stop_taking(HAND_ON_WAIT)
                finally:
                    with self._changed:
                        self._holding = self._stopped
                self.open()

    def start_over(self) -> None:
        """``cycle`` in a thread of its own, after a moment: what went wrong may be over by then."""
        with self._changed:
            if self._holding:
                return
            self._holding = True
        threading.Thread(target=self._start_over, name="coflows-start-over", daemon=True).start()

    def stop(self, grace: float) -> None:
        """Take nothing new, wait up to ``grace`` seconds for running turns, give back the rest. Idempotent."""
        self._stopped = True
        with self._cycling:
            self._stop_taking(grace)

    # -- for the runner ----------------------------------------------------------------------------------------

    def defer(self, delivery: Delivery) -> bool:
        """See Source."""
        with self._changed:
            if self._holding or delivery not in self._unopened:
                return True
            if self.full or delivery is not next(iter(self._unopened)):
                self._deferred.add(delivery)
                return True
            del self._unopened[delivery]
            self._sealed -= len(delivery.body)
            # One that came after it may have been looked at before it.
            following = self._take_deferred() if next(iter(self._unopened), None) in self._deferred else ()
        for one in following:
            self._runner.deliver(one, self)
        return False

    def track(self, jobs: Iterable[Job]) -> bool:
        """See Source."""
        with self._changed:
            if self._holding:
                return False
            for job in jobs:
                self._jobs[job] = None
                self._bytes += job.incoming.weight
            return True

    def gives_back(self, job: Job) -> bool:
        """See Source."""
        return self._holding or job not in self._jobs

    def settled(self, jobs: Iterable[Job]) -> None:
        """See Source."""
        deferred: Sequence[Delivery] = ()
        with self._changed:
            was_full = self.full
            for job in jobs:
                if self._jobs.pop(job, job) is None:
                    self._bytes -= job.incoming.weight
            goes_on = was_full and not self.full
            if not self._jobs:
                self._changed.notify_all()
            if self._deferred and len(self._jobs) <= MAX_JOBS // 2 and self._bytes <= MAX_BYTES // 2:
                deferred = self._take_deferred()
        for one in deferred:
            self._runner.deliver(one, self)
        if goes_on:
            self._runner.go_on()

    # -- inside ------------------------------------------------------------------------------------------------

    def _on_delivery(self, delivery: Delivery) -> None:
        size, fewer = len(delivery.body), self._prefetch
        with self._changed:
            if self._holding:
                return  # It stays unsettled, and goes back in its order when the consumer closes.
            self._unopened[delivery] = None
            self._sealed += size
            self._largest = max(self._largest, size)
            if self._sealed > MAX_SEALED:
                fewer = fitting(self._prefetch, self._largest)
        if fewer < self._prefetch:
            logger.warning("%s has large messages; %d deliveries are taken at a time now.", self._queue.name, fewer)
            self._prefetch = fewer
            self.start_over()
        else:
            self._runner.deliver(delivery, self)

    def _take_deferred(self) -> list[Delivery]:
        deferred, self._deferred = self._deferred, set()
        return [one for one in self._unopened if one in deferred]

    def _stop_taking(self, wait: float) -> None:
        with self._changed:
            self._holding = True
            self._era += 1
            self._unopened.clear()
            self._deferred.clear()
            self._sealed = 0
            jobs = list(self._jobs)
        self.settled(self._runner.withdraw(jobs))
        deadline = time.monotonic() + wait
        with self._changed:
            self._changed.wait_for(lambda: not self._jobs, max(0.0, deadline - time.monotonic()))
            goes_on = self.full
            self._jobs.clear()
            self._bytes = 0
        if goes_on:
            self._runner.go_on()
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
        if self._lease is not None:
            self._lease.lost()
            self._runner.forget_partition(self._lease.partition, jobs)

    def _start_over(self) -> None:
        """Nobody else may consume it, so it is tried until it succeeds."""
        while not self._stopped:
            time.sleep(START_OVER_PAUSE)
            try:
                self.cycle()
                return
            except Exception:  # A mistake of ours too would leave the partition with nobody.
                logger.exception("Could not consume %s again; trying once more.", self._queue.name)
