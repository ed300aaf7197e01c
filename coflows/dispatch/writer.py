"""Commits what the turns of a batch have done, and sees to what follows: replies, acknowledgements, another try."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from coflows.codec.wire import encode
from coflows.dispatch.draft import Content
from coflows.dispatch.work import Work
from coflows.errors import ConflictError, StoreError
from coflows.failpoints import Failpoints
from coflows.store.base import Store, When

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)

RETRY = 1.0
"""Seconds between attempts at writing what a long turn has done, of which nobody else knows."""


class Writer:
    """Thread-safe; the commits of one batch follow each other."""

    def __init__(self, store: Store, runner: Runner, failpoints: Failpoints) -> None:
        self._store = store
        self._runner = runner
        self._failpoints = failpoints

    def write(self, work: Work, *, last: bool = False, alone: bool = True) -> None:
        """Commit what the batch has finished, and go on when that is decided; ``last``: do not wait, and let the lane
        go then. ``alone``: no others are about to be written."""
        content = work.draft.take()
        if content is None or work.draft.broken:
            if content is not None:
                self._lost(work, content)
                work.draft.wrote(refused=True)
            if last:
                self._runner.end(work)
            return
        both: _Both | None = None
        if last and self._may_answer_early(content):
            both = _Both(partial(self._runner.settlement.settle, [job for job, _ in content.turns]))
            self._runner.settlement.answered(job for job, _ in content.turns)
            self._runner.outbox.send(content.turns, both)
        for key, (passed, at) in content.orders.items():
            content.writes[key] = encode({"passed": passed, "at": at})
        self._failpoints.reach("before_commit")
        when = When.LATER  # The replies are on their way; only the acknowledgement waits.
        if both is None:
            # Alone, this thread writes best; with others, all together in the store's.
            when = When.NOW if (alone and self._runner.is_all(len(content.turns))) or not last else When.SOON
        self._commit(work, content, both, last=last, when=when)
        if not last:
            work.draft.wait()

    def _commit(self, work: Work, content: Content, both: _Both | None, *, last: bool, when: When) -> None:
        def written(outcome: int | StoreError, *, begun: bool = True) -> None:
            failed = isinstance(outcome, StoreError) and not isinstance(outcome, ConflictError)
            if failed and begun and content.parked:
                logger.warning("The outcome of a long turn could not be written; trying again: %s", outcome)
                self._runner.later(RETRY, partial(self._commit, work, content, both, last=last, when=When.NOW))
                return
            try:
                if isinstance(outcome, StoreError):
                    self._refused(work, content, outcome)
                elif both is not None:
                    both(None)
                else:
                    self._committed(content)
            finally:
                work.draft.wrote(refused=isinstance(outcome, StoreError))
                if last:
                    self._runner.end(work)

        try:
            self._store.commit_async(written, content.writes, content.deletes, content.conditions, when=when)
        except Exception as error:  # What cannot be begun cannot be tried again; slot and lanes must not stay taken.
            written(StoreError(f"A commit could not be begun: {error}"), begun=False)

    def _may_answer_early(self, content: Content) -> bool:
        """A turn without state that sent nothing but replies to sessions: the reply need not wait for the record."""
        return all(
            job.source.lease is None
            and job.parked is None
            and all(one.answers is not None and one.session for one in sent)
            for job, sent in content.turns
        )

    def _committed(self, content: Content) -> None:
        self._failpoints.reach("after_commit")
        if content.due:
            self._runner.expect(min(content.due))
        self._runner.settlement.finish(content.turns)

    def _refused(self, work: Work, content: Content, error: StoreError) -> None:
        for job, _ in content.turns:
            claim = job.claim
            if not isinstance(error, ConflictError) or (claim is not None and claim.key in error.keys):
                self._runner.settlement.give_up(job, error)
            else:
                # One of them was worked off by somebody else, or its instance deleted: each on its own tells.
                job.fresh = False
                work.again.append(job)

    def _lost(self, work: Work, content: Content) -> None:
        for job, _ in content.turns:
            job.fresh = False
            work.again.append(job)


class _Both:
    """Calls ``then`` when it was called twice, with the first error."""

    def __init__(self, then: Callable[[BaseException | None], None]) -> None:
        self._then = then
        self._lock = threading.Lock()
        self._calls = 0
        self._error: BaseException | None = None

    def __call__(self, error: BaseException | None) -> None:
        with self._lock:
            self._calls += 1
            self._error = self._error or error
            last = self._calls == 2
        if last:
            self._then(self._error)
