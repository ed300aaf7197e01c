"""A worker that dies over and over: each life has a failpoint of its own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable

from tests.chaos.nursery import Brood, Child


class Lives:
    """The lives of one user's worker: each ends at the next of ``failpoints``, and the one after the last has none.
    Thread-safe."""

    def __init__(self, nursery: Brood, user: str, failpoints: Iterable[str], **options: bool) -> None:
        self._nursery = nursery
        self._user = user
        self._options = options
        self._failpoints = iter(failpoints)
        self._stopped = False
        self.deaths = 0
        self.last = threading.Event()
        """Set when the life without a failpoint has begun."""
        self.child = self._begin()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the one that lives now."""
        self.child.signal(number)

    def stop(self) -> None:
        """End it for good."""
        self._stopped = True
        self.child.stop()
        self._keeper.join()

    def _begin(self) -> Child:
        failpoint = next(self._failpoints, "")
        child = self._nursery.worker(self._user, environment={"COFLOWS_FAILPOINTS": failpoint}, **self._options)
        if not failpoint:
            child.ready.wait(60)
            self.last.set()
        return child

    def _keep(self) -> None:
        while True:
            self.child.died.wait()
            if self._stopped:
                return
            self.deaths += 1
            self.child = self._begin()
            if self._stopped:
                self.child.stop()
