"""One commit on its way to the store: checked, and independent of what the caller does next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from coflows.errors import ConflictError
from coflows.store.keys import check_key, check_value, shown

_MAX_VERSION = 2**63 - 1
_SHOWN_KEYS = 5


@dataclass(frozen=True, slots=True)
class Commit:
    """Valid arguments of ``Store.commit``."""

    writes: dict[str, bytes]
    deletes: tuple[str, ...]
    conditions: dict[str, int]
    size: int
    """Bytes of keys and values, roughly."""

    @property
    def changes(self) -> bool:
        """Whether it writes or deletes; otherwise it only checks."""
        return bool(self.writes or self.deletes)


def checked_commit(
    writes: Mapping[str, bytes] | None, deletes: Iterable[str], conditions: Mapping[str, int] | None
) -> Commit:
    """The commit, or SerializationError for a key or value, ValueError for the rest."""
    values = {check_key(key): check_value(key, value) for key, value in (writes or {}).items()}
    if isinstance(deletes, str):
        raise ValueError(f"deletes is the str {shown(deletes)}; expected an iterable of keys")
    gone = tuple(dict.fromkeys(check_key(key) for key in deletes))
    for key in gone:
        if key in values:
            raise ValueError(f"key {shown(key)} is both written and deleted in one commit")
    versions = {check_key(key): _check_version(key, version) for key, version in (conditions or {}).items()}
    size = sum(len(key) + len(value) for key, value in values.items()) + 64 * (len(gone) + len(versions))
    return Commit(values, gone, versions, size)


def conflict(url: str, keys: Iterable[str]) -> ConflictError:
    """The error for a commit whose conditions on ``keys`` did not hold."""
    stale = tuple(sorted(keys))
    names = ", ".join(shown(key) for key in stale[:_SHOWN_KEYS])
    more = f" and {len(stale) - _SHOWN_KEYS} more" if len(stale) > _SHOWN_KEYS else ""
    return ConflictError(
        f"{names}{more} changed meanwhile in {url}; nothing was written.",
        keys=stale,
        hint="Read again, decide again and repeat the commit.",
    )


def _check_version(key: str, version: object) -> int:
    if isinstance(version, int) and 0 <= version <= _MAX_VERSION:
        return version
    raise ValueError(f"the condition on key {shown(key)} is {shown(version)}; expected a version or ABSENT")
