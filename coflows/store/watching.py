"""Watches: one thread per store reads the change log when it is woken and tells each watch its keys."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

from coflows.errors import StoreError, StoreUnavailableError
from coflows.store.base import Watch

_POLL_SECONDS = 1.0
"""How late a change may be told when the process that made it died before it could wake the others."""


@dataclass(frozen=True, slots=True)
class Change:
    """One key of one commit."""

    position: int
    key: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Changes:
    """What the log has after some position."""

    end: int
    complete: bool
    """False when some changes were never logged (nobody watched) or are trimmed away."""
    items: list[Change]


class Signal(ABC):
    """What the watching thread sleeps on."""

    @abstractmethod
    def wait(self, timeout: float) -> None:
        """Return after ``timeout`` seconds, or at once when something may have changed or ``wake`` was called."""

    @abstractmethod
    def wake(self) -> None:
        """Let ``wait`` return. Called from any thread."""

    @abstractmethod
    def close(self) -> None:
        """No longer ask committers to log and to call. Idempotent."""


class ChangeFeed(ABC):
    """What an adapter offers to its watches. Methods raise StoreError."""

    @abstractmethod
    def open_signal(self) -> Signal:
        """From now on commits that begin are logged, and the signal is told of them."""

    @abstractmethod
    def changes(self, after: int) -> Changes:
        """The log after a position."""

    @abstractmethod
    def snapshot(self, prefix: str) -> tuple[int, set[str]]:
        """The end of the log, and the keys under ``prefix`` at that moment."""


@dataclass(eq=False)
class _PrefixWatch(Watch):
    prefix: str
    callback: Callable[[frozenset[str]], None]
    since: int
    # Tells which keys are gone when the log has a gap.
    known: set[str]
    closed: bool = False
    lock: threading.RLock = field(default_factory=threading.RLock)

    def close(self) -> None:
        with self.lock:
            self.closed = True

    def follow(self, changes: Changes) -> frozenset[str]:
        keys = set()
        for change in changes.items:
            if change.position > self.since and change.key.startswith(self.prefix):
                keys.add(change.key)
                (self.known.discard if change.deleted else self.known.add)(change.key)
        return frozenset(keys)

    def restart(self, position: int, keys: set[str]) -> frozenset[str]:
        changed = frozenset(self.known | keys)
        self.since, self.known = position, keys
        return changed

    def deliver(self, keys: frozenset[str]) -> None:
        with self.lock:
            if self.closed or not keys:
                return
            try:
                self.callback(keys)
            except Exception:
                logging.getLogger(__name__).exception("The watch on %r raised; it goes on.", self.prefix)


class WatchHub:
    """All watches of one open store. Thread-safe."""

    def __init__(self, feed: ChangeFeed, url: str) -> None:
        self._feed = feed
        self._url = url
        self._lock = threading.Lock()
        self._watches: list[_PrefixWatch] = []
        self._position = 0
        self._signal: Signal | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def watch(self, prefix: str, callback: Callable[[frozenset[str]], None]) -> Watch:
        """As ``Store.watch``."""
        with self._lock:
            if self._closing.is_set():
                raise StoreUnavailableError(f"The store {self._url} was closed.", hint="Open it again.")
            if self._signal is None:
                self._signal = self._feed.open_signal()
            watch = _PrefixWatch(prefix, callback, *self._feed.snapshot(prefix))
            self._watches.append(watch)
            if self._thread is None:
                self._position = watch.since
                self._thread = threading.Thread(target=self._run, name="coflows-store-watch", daemon=True)
                self._thread.start()
        return watch

    def close(self) -> None:
        """End all watches; may be called from a callback. Idempotent."""
        self._closing.set()
        with self._lock:
            watches, signal, thread = self._watches, self._signal, self._thread
        for watch in watches:
            watch.close()
        if signal is not None:
            signal.wake()
        if thread is None:
            if signal is not None:
                signal.close()
        elif thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        signal = self._signal
        assert signal is not None
        try:
            while not self._closing.is_set():
                signal.wait(_POLL_SECONDS)
                for watch, keys in self._news():
                    watch.deliver(keys)
        finally:
            signal.close()

    def _news(self) -> list[tuple[_PrefixWatch, frozenset[str]]]:
        try:
            with self._lock:
                if self._closing.is_set():
                    return []
                return self._read()
        except StoreError as error:
            # The position stays where it was, so the next round has it all.
            logging.getLogger(__name__).warning("Watches of %s wait for the store: %s", self._url, error)
            self._closing.wait(_POLL_SECONDS)
            return []

    def _read(self) -> list[tuple[_PrefixWatch, frozenset[str]]]:
        self._watches = [watch for watch in self._watches if not watch.closed]
        changes = self._feed.changes(self._position)
        if changes.complete:
            news = [(watch, watch.follow(changes)) for watch in self._watches]
        else:
            fresh = [(watch, self._feed.snapshot(watch.prefix)) for watch in self._watches]
            news = [(watch, watch.restart(position, keys)) for watch, (position, keys) in fresh]
        self._position = changes.end
        return news
