"""Turns of async flows: on the event loop without a thread of their own, and written with those that end with them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from coflows.dispatch.batch import MAX_BATCH
from coflows.dispatch.event_loop import Coroutine, EventLoop

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner


class Coroutines:
    """Of one runner; thread-safe. The loop is there from the first coroutine on."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._loop: EventLoop | None = None
        self._lock = threading.Lock()

    def run(self, coroutine: Coroutine) -> None:
        """Let the event loop run a job that was detached, and a thread of the runner's do what comes then."""
        with self._lock:
            if self._loop is None:
                self._loop = EventLoop("coflows-async", self._runner.finish_async)
        self._loop.run(coroutine)

    def cancel(self, coroutine: Coroutine) -> None:
        """End a coroutine, which was run, at its next ``await``."""
        if self._loop is not None:
            self._loop.cancel(coroutine)

    def finish(self, coroutines: Sequence[Coroutine]) -> None:
        """They have ended."""
        # Not those that took long: when one is refused, all that are with it begin again.
        quick = [one for one in coroutines if one.work.job is not None and one.work.job.parked is None]
        groups = [quick[first : first + MAX_BATCH] for first in range(0, len(quick), MAX_BATCH)]
        groups += [[one] for one in set(coroutines).difference(quick)]
        for group in groups:
            self._finish_together(group, alone=len(coroutines) == 1)

    def close(self) -> None:
        """Stop the loop, if there is one. Idempotent."""
        if self._loop is not None:
            self._loop.close()

    def _finish_together(self, coroutines: Sequence[Coroutine], *, alone: bool) -> None:
        works = [coroutine.work for coroutine in coroutines]
        together = works[0] if len(works) == 1 else self._runner.join(works)
        for coroutine, work in zip(coroutines, works, strict=True):
            if work is not together:
                with work.draft.lock:  # It may just be parked.
                    together.job, work.job, work.turn = work.job, None, None
                together.since = work.since
                together.loaded |= work.loaded
            try:
                coroutine.then(coroutine, together)
            except Exception as error:
                self._runner.fail(together, error)
        self._runner.write(together, alone=alone)
