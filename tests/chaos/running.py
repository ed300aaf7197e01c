"""A load that goes on while something is done to the world, and waiting until the world is in a certain state."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from coflows.codec.wire import decode
from coflows.errors import BrokerError, InstanceNotFoundError
from tests.chaos.world import Load, World

PATIENCE = 90.0


class StubbornLoad(Load):
    """Whose sender, told by a typed error that a message was not taken, sends it again; ``refused`` counts that."""

    refused = 0

    def send(self, rounds: int, *, seconds: float = 0.0) -> None:
        """See Load."""
        for _ in range(rounds):
            for name, flow in self._flows.items():
                self._next += 1
                self.sent[name].append(self._next)
                until(lambda: self._accepted(name, flow, seconds))  # noqa: B023 (called at once)

    def _accepted(self, name: str, flow: object, seconds: float) -> bool:
        message = flow.package_input_message({"number": self._next, "seconds": seconds})
        try:
            self._futures[name].append(flow.get_reply_future(message))
        except (BrokerError, InstanceNotFoundError):
            self.refused += 1
            return False
        return True


@contextmanager
def running(*loads: Load, pause: float = 0.02) -> Iterator[None]:
    """Each load sends round after round, with ``pause`` seconds in between, until the block ends."""
    over = threading.Event()

    def send(load: Load) -> None:
        while not over.wait(pause):
            load.send(1)

    with ThreadPoolExecutor(len(loads)) as threads:
        sending = [threads.submit(send, load) for load in loads]
        try:
            yield
        finally:
            over.set()
        for one in sending:
            one.result()


def until(condition: Callable[[], bool], patience: float = PATIENCE, pause: float = 0.02) -> None:
    """Look again and again until it holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"{condition} did not come to hold within {patience} s"
        time.sleep(pause)


def holders(made: World) -> dict[int, str]:
    """Which of alice's workers has last taken which partition."""
    prefix = "leases:coflows_dispatch:"
    return {
        int(entry.key.removeprefix(prefix)): decode(entry.value, max_bytes=1000)["worker"]
        for entry in made.alice.store.scan(prefix)
    }
