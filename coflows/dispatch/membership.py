"""Which workers share a dispatch point, and which of them should have which partition."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from coflows.codec.wire import encode
from coflows.endpoints import read
from coflows.errors import CoflowsError
from coflows.model.layout import workers_prefix
from coflows.store.base import Store

logger = logging.getLogger(__name__)

HEARTBEAT = 2.0
TIME_TO_LIVE = 10.0
"""Seconds after its last heartbeat that a worker counts as gone. What it held is taken over at once all the same (the
broker sees to that); this only decides how evenly the rest is shared."""


def share(partitions: Iterable[int], workers: Iterable[str], worker: str) -> set[int]:
    """The partitions that ``worker`` should have: dealt out evenly in the order of the workers' names."""
    names = sorted(set(workers) | {worker})
    return {partition for partition in partitions if names[partition % len(names)] == worker}


def alive_workers(store: Store, dispatch_point: str) -> list[str]:
    """The names of the workers that share a dispatch point, in order. Raises what the store raises."""
    prefix, now = workers_prefix(dispatch_point), time.time()
    return sorted(
        entry.key.removeprefix(prefix) for entry in store.scan(prefix) if now - read(entry.value)["at"] < TIME_TO_LIVE
    )


def refused_by_workers(store: Store, dispatch_point: str) -> Counter[str]:
    """What the workers of a dispatch point that are there have refused since they were started, by error code."""
    found: Counter[str] = Counter()
    for entry in store.scan(workers_prefix(dispatch_point)):
        found.update(read(entry.value).get("refused", {}))
    return found


class Membership:
    """Announces a worker, and tells with each heartbeat who is there and whether that has changed: a watch would have
    every commit of every turn log what it changed. Thread-safe."""

    def __init__(
        self,
        store: Store,
        dispatch_point: str,
        worker: str,
        on_look: Callable[[Sequence[str], bool], None],
        refused: Callable[[], Mapping[str, int]] = dict,
    ) -> None:
        self._store = store
        self._point = dispatch_point
        self._key = f"{workers_prefix(dispatch_point)}{worker}"
        self._on_look = on_look
        self._refused = refused
        self._known: list[str] = [worker]
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._run, name="coflows-membership", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Say good-bye. Idempotent."""
        if self._stopped.is_set():
            return
        self._stopped.set()
        self._wake.set()
        self._thread.join()
        try:
            self._store.commit(deletes=[self._key])
        except CoflowsError as error:
            logger.warning("Could not say good-bye: %s", error)

    def _run(self) -> None:
        self._wake.set()
        next_beat = time.monotonic() + HEARTBEAT
        while not self._stopped.is_set():
            self._wake.wait(max(0.0, next_beat - time.monotonic()))
            self._wake.clear()
            try:
                if time.monotonic() >= next_beat:
                    next_beat = time.monotonic() + HEARTBEAT
                    self._beat()
                self._look()
            except CoflowsError as error:
                logger.warning("Could not see who shares the work; trying again: %s", error)
                self._stopped.wait(HEARTBEAT)

    def _beat(self) -> None:
        self._store.commit({self._key: encode({"at": time.time(), "refused": self._refused()})})

    def _look(self) -> None:
        alive = alive_workers(self._store, self._point)
        if not self._stopped.is_set():
            changed, self._known = alive != self._known, alive
            self._on_look(alive, changed)
