"""A dispatch worker: works off the messages of one user's dispatch point, sharing it with its other workers."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coflows.client import Client
from coflows.dispatch.membership import Membership, share
from coflows.dispatch.partitions import PREFETCH, PartitionFeed
from coflows.dispatch.runner import Runner
from coflows.dispatch.sweeping import Sweeper
from coflows.endpoints import ensure_point
from coflows.errors import CoflowsError, ConfigurationError
from coflows.model.messages import new_message_id
from coflows.model.names import check_dispatch_point

logger = logging.getLogger(__name__)

GRACE = 30.0
RESHARE = 5.0
LONGEST_RESHARE = 300.0
"""Seconds between looking for partitions that should be another worker's: after a lost connection whoever is back first
has them all. The time doubles while they come back, because the other one is not there after all."""


class DispatchWorker:
    """Runs from construction until ``stop``. Thread-safe.

    ``resources`` reach the flows of this worker as they are, under these names, besides its ``client``; ``prefetch`` is
    how many messages of a queue it takes before it has worked them off, which other workers do not get then;
    ``park_after``, if given, goes before COFLOWS_PARK_AFTER.
    """

    def __init__(
        self,
        cl: Client,
        dispatch_point: str,
        *,
        concurrency: int = 8,
        base_paths: Sequence[Path] = (),
        secrets: Mapping[str, str] | None = None,
        resources: Mapping[str, Any] | None = None,
        prefetch: int = PREFETCH,
        park_after: float | None = None,
    ) -> None:
        check_dispatch_point(dispatch_point)
        if concurrency < 1:
            raise ConfigurationError(f"A worker's concurrency is at least 1, not {concurrency}.")
        self.name = new_message_id()[-12:]
        self._lock = threading.Lock()
        self._stopped = False
        self._partitions = ensure_point(cl, dispatch_point)
        self._runner = Runner(
            cl,
            dispatch_point,
            self.name,
            concurrency=concurrency,
            base_paths=(*base_paths, *cl.settings.flow_modules),
            secrets=dict(secrets or {}),
            park_after=cl.settings.park_after if park_after is None else park_after,
            resources={"client": cl, **(resources or {})},
        )
        numbers = (None, *range(self._partitions))
        self._feeds = [
            PartitionFeed(cl, dispatch_point, number, self._runner, self.name, prefetch) for number in numbers
        ]
        self._runner.custody.sources |= {feed.partition: feed for feed in self._feeds}
        for feed in self._feeds:
            feed.open()
        self._reshare = RESHARE
        self._next_reshare = 0.0
        self._ending = threading.Event()
        threading.Thread(target=self._tick, name="coflows-tick", daemon=True).start()
        self._sweeper = Sweeper(cl.store, cl.settings.call_ttl)
        refused = cl.session.refusals.counts
        self._membership = Membership(cl.store, dispatch_point, self.name, self._rebalance, refused)

    def stop(self, grace: float = GRACE) -> None:
        """Take nothing new, finish running turns for up to ``grace`` seconds, give the rest back. Idempotent."""
        with self._lock:
            if self._stopped:
                return
            self._stopped = True
        until = time.monotonic() + grace
        self._sweeper.close()
        stops = [threading.Thread(target=feed.stop, args=(grace,)) for feed in self._feeds]
        for stop in stops:
            stop.start()
        for stop in stops:
            stop.join()
        # Until its good-bye nobody adopts what this worker has parked.
        self._runner.custody.wait(max(0.0, until - time.monotonic()))
        self._ending.set()
        self._membership.close()
        self._runner.close()

    def _tick(self) -> None:
        while not self._ending.wait(1.0):
            self._runner.tick()

    def _rebalance(self, workers: Sequence[str], changed: bool) -> None:
        """Line up behind the others wherever the partition should be theirs."""
        own = share(range(self._partitions), workers, self.name)
        foreign = [feed for feed in self._feeds if feed.partition is not None and feed.partition not in own]
        if changed:
            logger.info(
                "%d worker(s) share the dispatch point; %s should have %s.", len(workers), self.name, sorted(own)
            )
            self._reshare = RESHARE
        else:
            foreign = [feed for feed in foreign if feed.lease is not None and feed.lease.taken]
        if not changed and not self._reshare_due(bool(foreign)):
            return
        self._next_reshare = time.monotonic() + self._reshare
        for feed in foreign if len(workers) > 1 else ():
            try:
                feed.cycle()
            except Exception as error:
                known = isinstance(error, CoflowsError)
                logger.warning("Could not hand partition %s on: %s", feed.partition, error, exc_info=not known)
                feed.start_over()  # It may not be in line for it any more.

    def _reshare_due(self, strays: bool) -> bool:
        if time.monotonic() < self._next_reshare:
            return False
        self._reshare = min(2 * self._reshare, LONGEST_RESHARE) if strays else RESHARE
        return strays
