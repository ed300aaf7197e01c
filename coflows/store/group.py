"""Group commit: what many threads commit at the same time becomes one transaction."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable

from coflows.errors import ConflictError, StoreError, StoreLockedError, StoreUnavailableError
from coflows.store.base import When
from coflows.store.commits import Commit

logger = logging.getLogger(__name__)

Outcome = int | ConflictError
"""The version that a commit was given, or why it was refused."""

_MAX_COMMITS = 512
_MAX_BYTES = 8 * 1024 * 1024
_LINGER, _MANY = 0.02, 256
"""Seconds that commits wait for others when nobody waits for them, and how many of them do not wait any longer."""


class _Pending:
    __slots__ = ("_done", "_outcome", "commit")

    def __init__(self, commit: Commit) -> None:
        self.commit = commit
        self._outcome: int | StoreError | None = None
        self._done = threading.Lock()
        self._done.acquire()

    def settle(self, outcome: int | StoreError) -> None:
        self._outcome = outcome
        self._done.release()

    def result(self) -> int:
        self._done.acquire()
        if isinstance(self._outcome, StoreError):
            raise self._outcome
        assert self._outcome is not None
        return self._outcome


class _Callback:
    __slots__ = ("_done", "commit")

    def __init__(self, commit: Commit, done: Callable[[int | StoreError], None]) -> None:
        self.commit = commit
        self._done = done

    def settle(self, outcome: int | StoreError) -> None:
        try:
            self._done(outcome)
        except Exception:
            logger.exception("What followed a commit failed.")


class GroupWriter:
    """Applies commits one group at a time.

    ``apply`` gets a group and returns one outcome for each, after they are durable; when it raises StoreError nothing
    of the group was written. A commit that meets no other is applied by its own thread, which spares two thread
    switches; the rest go to a thread of the writer's. Thread-safe.
    """

    def __init__(self, apply: Callable[[list[Commit]], list[Outcome]], url: str) -> None:
        self._apply = apply
        self._url = url
        self._turn = threading.Lock()
        self._gate = threading.Condition()
        self._queue: deque[_Pending | _Callback] = deque()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hurry = False
        self._lingering = False

    def commit(self, commit: Commit) -> int:
        """Apply, durably; raises what ``apply`` raised, or the ConflictError of this commit."""
        pending = _Pending(commit)
        if threading.current_thread() is self._thread:
            self._commit_alone(pending)  # In what follows another commit: it must not wait for itself.
        elif not self._commit_here(pending):
            self._enqueue(pending)
        return pending.result()

    def commit_async(self, commit: Commit, done: Callable[[int | StoreError], None], *, when: When) -> None:
        """``commit`` without waiting: ``done`` is called with the outcome, by this thread or the writer's."""
        pending = _Callback(commit, done)
        if when is not When.NOW or not self._commit_here(pending):
            self._enqueue(pending, hurry=when is not When.LATER)

    def close(self) -> None:
        """Apply what is queued, then stop. Idempotent."""
        with self._gate:
            self._closed = True
            self._gate.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join()
        with self._turn:  # a commit that its own thread applies ends first
            pass

    def _commit_here(self, pending: _Pending | _Callback) -> bool:
        """In the calling thread, with what lingers. Not when others wait: whoever finds them queues behind them, or the
        group's thread would never get its turn."""
        if (self._queue and not self._lingering) or not self._turn.acquire(blocking=False):
            return False
        try:
            self._check_open()
            with self._gate:
                group = self._take_group()
            group.append(pending)
            outcomes = self._outcomes([one.commit for one in group])
        finally:
            self._turn.release()
        for one, outcome in zip(group, outcomes, strict=True):
            one.settle(outcome)
        return True

    def _commit_alone(self, pending: _Pending) -> None:
        with self._turn:
            (outcome,) = self._outcomes([pending.commit])
        pending.settle(outcome)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailableError(f"The store {self._url} was closed.", hint="Open it again.")

    def _enqueue(self, pending: _Pending | _Callback, *, hurry: bool = True) -> None:
        with self._gate:
            self._check_open()
            self._queue.append(pending)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coflows-store-writer", daemon=True)
                self._thread.start()
            self._hurry = self._hurry or hurry or len(self._queue) >= _MANY
            if self._hurry or not self._lingering:
                self._gate.notify()

    def _run(self) -> None:
        while self._wait_for_work():
            with self._turn:
                with self._gate:
                    group = self._take_group()
                outcomes = self._outcomes([pending.commit for pending in group]) if group else []
            for pending, outcome in zip(group, outcomes, strict=True):
                pending.settle(outcome)

    def _wait_for_work(self) -> bool:
        with self._gate:
            self._gate.wait_for(lambda: self._queue or self._closed)
            if not self._hurry and not self._closed:
                # What may wait gathers meanwhile, and need not wake this thread.
                self._lingering = True
                self._gate.wait_for(lambda: self._hurry or self._closed, _LINGER)
                self._lingering = False
            self._hurry = False
            return bool(self._queue) or not self._closed

    def _take_group(self) -> list[_Pending | _Callback]:
        group: list[_Pending | _Callback] = []
        size = 0
        while self._queue and len(group) < _MAX_COMMITS and size < _MAX_BYTES:
            group.append(self._queue.popleft())
            size += group[-1].commit.size
        return group

    def _outcomes(self, commits: list[Commit]) -> list[int | StoreError]:
        try:
            return [*self._apply(commits)]
        except (StoreLockedError, StoreUnavailableError) as error:
            return [_copy(error) for _ in commits]
        except Exception as error:
            if len(commits) > 1:  # one of them may be what fails, a commit larger than the disk for example
                return [outcome for commit in commits for outcome in self._outcomes([commit])]
            if isinstance(error, StoreError):
                return [error]
            failure = StoreError(f"A commit to {self._url} failed: {error!r}.", hint="Please report this.")
            failure.__cause__ = error
            return [failure]


def _copy(error: StoreError) -> StoreError:
    """One for each thread that raises it: a traceback grows by every raise."""
    twin = type(error)(error.message, hint=error.hint)
    twin.__cause__ = error.__cause__
    return twin
