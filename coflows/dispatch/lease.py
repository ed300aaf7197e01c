"""The right to commit for one partition: taken by writing a key whose version every commit is conditioned on."""

from __future__ import annotations

import threading
import time

from coflows.codec.wire import encode
from coflows.errors import ConflictError
from coflows.model.layout import lease_key
from coflows.store.base import ABSENT, Store


class Lease:
    """Taken when first needed and held until another worker takes it; then this one's commits are refused, however
    late they come. Thread-safe."""

    def __init__(self, store: Store, worker: str, dispatch_point: str, partition: int) -> None:
        self.key = lease_key(dispatch_point, partition)
        self.partition = partition
        self._store = store
        self._worker = worker
        self._epoch: int | None = None
        self._lock = threading.Lock()

    def take(self) -> int:
        """The epoch to commit under; takes the lease unless it is held. Take it before reading state: what was read
        before may be older than the last commit of who held it."""
        with self._lock:
            while self._epoch is None:
                entry = self._store.get(self.key)
                version = ABSENT if entry is None else entry.version
                value = encode({"worker": self._worker, "at": time.time()})
                try:
                    self._epoch = self._store.commit({self.key: value}, conditions={self.key: version})
                except ConflictError:
                    continue
            return self._epoch

    @property
    def taken(self) -> bool:
        """Whether, as far as is known here, it was taken and not lost since."""
        return self._epoch is not None

    def holds(self, epoch: int) -> bool:
        """Whether, as far as is known here, the epoch is still the current one."""
        return self._epoch == epoch

    def lost(self) -> None:
        """Another worker has it, or may have had it."""
        with self._lock:
            self._epoch = None
