"""What a running worker is to who started it: something to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self


class WorkerHandle:
    """Stops a worker; as a context manager, at the end of the block. Thread-safe."""

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop

    def stop(self) -> None:
        """Finish what runs, give back the rest, return when that is done. Idempotent."""
        self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_until_signal(handles: Sequence[WorkerHandle]) -> None:
    """Block the main thread until SIGTERM or SIGINT, then stop the workers; a second signal ends at once."""
    asked = threading.Event()
    previous = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    asked.wait()
    for number, handler in previous.items():
        signal.signal(number, handler)
    stops = [threading.Thread(target=handle.stop, daemon=True) for handle in handles]
    for stop in stops:
        stop.start()
    for stop in stops:
        stop.join()
