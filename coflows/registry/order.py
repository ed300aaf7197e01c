"""In which order flows are listed: ``name:d,author`` is by name downwards, then by author."""

from __future__ import annotations

from typing import NamedTuple

from coflows.errors import QueryInvalidError

FIELDS = ("name", "organization", "author", "url", "node", "user_id", "flow_endpoint")
MAX_KEYS = len(FIELDS)


class Key(NamedTuple):
    """One field to sort by."""

    field: str
    down: bool = False


def parse_order(text: str) -> tuple[Key, ...]:
    """The fields to sort by; by name when nothing is said. Raises QueryInvalidError."""
    keys: dict[str, Key] = {}
    for part in text.split(",") if text.strip() else ["name"]:
        field, _, way = part.strip().partition(":")
        if field not in FIELDS or way not in ("", "a", "d"):
            raise QueryInvalidError(
                f"Flows cannot be sorted by {part.strip()[:80]!r}.",
                hint=f"Write fields of {', '.join(FIELDS)}, each with :a (up) or :d (down): name:d,author.",
            )
        keys.setdefault(field, Key(field, way == "d"))
    return tuple(keys.values())
