"""msgpack for everything that crosses users: plain values only, bounded in size, depth and number of elements."""

from __future__ import annotations

from typing import Any

import msgpack

from coflows.codec.bounds import measure
from coflows.errors import MessageTooLargeError, SerializationError

MAX_DEPTH = 32
MAX_ITEMS = 150_000
ELEMENT_BYTES = 140
"""What an element takes in memory, twice as much at most: a text as a key, a number, an empty list or dict."""
SMALL = 1024
"""Bytes of which what they hold cannot matter: they are read before they are measured, which is faster."""
_SCALARS = frozenset((str, int, float, bool, bytes, type(None)))
_HINT = "Send str, int, float, bool, None, bytes, and lists and dicts of these."


def encode(value: Any) -> bytes:
    """The bytes of a value. Raises SerializationError that names the key of what cannot be sent. Tuples become
    lists."""
    try:
        return bytes(msgpack.packb(value, strict_types=False))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise _explain(value, error) from None  # It says more than msgpack does.


def decode(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS) -> Any:
    """Read what ``encode`` wrote. Raises SerializationError for anything else, and beyond the bounds."""
    return decode_counted(data, max_bytes=max_bytes, max_depth=max_depth, max_items=max_items)[0]


def decode_counted(
    data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH, max_items: int = MAX_ITEMS
) -> tuple[Any, int]:
    """``decode``, and how many elements the value has: its memory is about ELEMENT_BYTES for each, and the bytes."""
    if len(data) > max_bytes:
        raise SerializationError(f"Value has {len(data)} bytes; at most {max_bytes} are taken.")
    small = len(data) <= SMALL
    items = 0 if small else measure(data, max_depth, max_items)
    longest = min(max_items, len(data))
    try:
        value = msgpack.unpackb(
            data,
            strict_map_key=True,
            max_array_len=longest,
            max_map_len=longest,
            max_ext_len=0,
            ext_hook=_no_extension,
        )
    except Exception as error:  # msgpack raises many kinds; all mean the same here
        raise SerializationError(f"These bytes are no value: {type(error).__name__}.") from error
    return value, _check_bounds(value, max_depth, max_items) if small else items


def check_sendable(value: dict[str, Any], max_depth: int = MAX_DEPTH) -> None:
    """Raise SerializationError for what ``encode`` takes and ``decode`` does not: keys that are no text, too much
    nesting, too many elements."""
    items = 0
    level: list[Any] = [value]
    for _ in range(max_depth + 1):
        below: list[Any] = []
        for one in level:
            items += len(one)
            if isinstance(one, dict):
                for key in one:
                    if type(key) is not str and not isinstance(key, (str, bytes)):
                        raise _explain(value, TypeError("a key is no text"))
                one = one.values()
            for inner in one:
                kind = type(inner)
                if kind is dict or kind is list or (kind not in _SCALARS and isinstance(inner, (dict, list, tuple))):
                    below.append(inner)
        if items > MAX_ITEMS:
            raise SerializationError(
                f"The message has more than {MAX_ITEMS} elements.", hint="Send a reference to the data, or bytes."
            )
        if not below:
            return
        level = below
    raise SerializationError(f"The message is nested deeper than {max_depth} levels.", hint="Send flatter data.")


def _no_extension(code: int, _data: bytes) -> None:
    """Even an empty one is no plain value."""
    raise ValueError(f"extension type {code}")


def check_size(data: bytes, limit: int) -> None:
    """Raise MessageTooLargeError when there are more than ``limit`` bytes."""
    if len(data) > limit:
        raise MessageTooLargeError(
            f"The message has {len(data)} bytes; at most {limit} are allowed.",
            hint="Send a reference to the data, or raise COFLOWS_MAX_MESSAGE_BYTES on both sides.",
        )


def _check_bounds(value: Any, max_depth: int, max_items: int) -> int:
    """How many elements it has."""
    items = 0
    level = [value]
    for _ in range(max_depth + 1):
        below: list[Any] = []
        for one in level:
            kind = type(one)
            if kind is dict:
                one = one.values()
            elif kind is not list:
                continue
            items += len(one)
            for inner in one:
                kind = type(inner)
                if kind is dict or kind is list:
                    below.append(inner)
        if items > max_items:
            raise SerializationError(f"Value has more than {max_items} elements.")
        if not below:
            return items
        level = below
    raise SerializationError(f"Value is nested deeper than {max_depth}.")


def _explain(value: Any, error: Exception) -> SerializationError:
    found = find_culprit(value)
    if found is None:
        return SerializationError(f"Cannot encode {_with_article(type(value).__name__)}: {error}.", hint=_HINT)
    key, why = found
    return SerializationError(f"Cannot encode {f'key {key!r}' if key else 'the value'}: {why}.", hint=_HINT)


def _with_article(name: str) -> str:
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} {name}"


def find_culprit(value: Any, key: str = "", depth: int = 0) -> tuple[str, str] | None:
    """The dotted key of the first thing in a value that msgpack does not hold, and why; None when all is well."""
    if depth > 500:
        return key, "it is nested too deep, or contains itself"
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else str(name)
            if not isinstance(name, (str, bytes)):
                return path, f"a dict's keys are str, not {type(name).__name__}"
            if (found := find_culprit(name, path, depth + 1) or find_culprit(inner, path, depth + 1)) is not None:
                return found
        return None
    if isinstance(value, (list, tuple)):
        for index, inner in enumerate(value):
            if (found := find_culprit(inner, f"{key}[{index}]", depth + 1)) is not None:
                return found
        return None
    try:
        msgpack.packb(value)
    except OverflowError:
        return key, "the integer has more than 64 bits"
    except UnicodeEncodeError:
        return key, "the text has half a surrogate pair and is no Unicode"
    except (TypeError, ValueError):
        return key, f"{_with_article(type(value).__name__)} is no plain value"
    return None
