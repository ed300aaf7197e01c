"""The store contract: one user's ordered keys, with atomic conditional commits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from types import TracebackType
from typing import NamedTuple, Self

from coflows.errors import StoreError

ABSENT = 0
"""The version of a key that is not there, for use in a commit's conditions."""


class Entry(NamedTuple):
    """A key, its value, and the version that its last write gave it (greater than every version before it)."""

    key: str
    value: bytes
    version: int


class When(Enum):
    """When a commit that nobody waits for is written."""

    NOW = auto()
    """In the calling thread if no other commit is being written, which is quickest for one; else SOON."""
    SOON = auto()
    """Together with others, in a thread of the store's."""
    LATER = auto()
    """The same, and it may wait a few milliseconds for others."""


class Watch(ABC):
    """A running watch."""

    @abstractmethod
    def close(self) -> None:
        """Stop; after this returns the callback is not called again. Idempotent."""


class Store(ABC):
    """One user's key-value store. Keys are non-empty str without NUL, at most 1024 UTF-8 bytes, ordered by their
    UTF-8 bytes; values are bytes, at most 64 MiB. All methods are thread-safe, and processes that open the same URL
    and namespace see one store.

    Raises, everywhere: StoreUnavailableError, StoreLockedError, StoreReadOnlyError, or StoreError for the rest; the
    text names the file or URL and what to do. After an error nothing of the commit has been written.
    """

    url: str
    """Without the password; safe to print."""

    @abstractmethod
    def get(self, key: str) -> Entry | None:
        """The entry, or None."""

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> dict[str, Entry]:
        """Those of the entries that there are."""

    @abstractmethod
    def scan(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int | None = None
    ) -> list[Entry]:
        """Entries in key order whose key starts with ``prefix``, from ``start`` (inclusive) up to ``end``
        (exclusive), at most ``limit``; all bounds hold together."""

    @abstractmethod
    def keys(
        self, prefix: str = "", *, start: str | None = None, end: str | None = None, limit: int | None = None
    ) -> list[str]:
        """Like ``scan``, the keys alone."""

    @abstractmethod
    def commit(
        self,
        writes: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        conditions: Mapping[str, int] | None = None,
    ) -> int:
        """Check, then write and delete, all or nothing; durable when it returns.

        ``conditions`` maps keys to the version each must have now (ABSENT: the key must not be there). When one does
        not hold, raises ConflictError with the keys, and nothing is written. Returns the version given to the
        writes. A key may not be both written and deleted (ValueError)."""

    @abstractmethod
    def commit_async(
        self,
        done: Callable[[int | StoreError], None],
        writes: Mapping[str, bytes] | None = None,
        deletes: Iterable[str] = (),
        conditions: Mapping[str, int] | None = None,
        *,
        when: When = When.SOON,
    ) -> None:
        """``commit`` that does not wait: ``done`` is called once with the version or the error, from this thread or one
        of the store's. Raises what is wrong with the arguments. Commits of one thread are applied in the order of
        the calls."""

    @abstractmethod
    def watch(self, prefix: str, callback: Callable[[frozenset[str]], None]) -> Watch:
        """Call ``callback`` soon after commits of any process that wrote or deleted keys under ``prefix``, from a
        thread of the store's, with the keys that changed since the last call. Every change is covered by some call
        at or after it, beginning with those after ``watch`` returned; several changes may share one call."""

    @abstractmethod
    def close(self) -> None:
        """Stop all watches and let go of the store. Idempotent."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
