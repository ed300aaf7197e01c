"""What may be a key, a value or a bound, and how a prefix and a range become one range."""

from __future__ import annotations

from coflows.errors import SerializationError

MAX_KEY_BYTES = 1024
MAX_VALUE_BYTES = 64 * 1024 * 1024

_LAST_CODE_POINT = 0x10FFFF
_BEFORE_SURROGATES = 0xD7FF
_AFTER_SURROGATES = 0xE000
_SHOWN = 80


def shown(key: object) -> str:
    """A key for an error's text, shortened."""
    text = ascii(key)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def check_key(key: object) -> str:
    """Return ``key`` when it may be one, else raise SerializationError."""
    if type(key) is str and key.isascii() and 0 < len(key) <= MAX_KEY_BYTES and "\0" not in key:
        return key  # Nearly all are like this.
    if not isinstance(key, str):
        raise SerializationError(f"Store key {shown(key)} is not a str.", hint="Use a str as key.")
    size = len(_encoded(key))
    if not 0 < size <= MAX_KEY_BYTES or "\0" in key:
        raise SerializationError(
            f"Store key {shown(key)} of {size} bytes cannot be stored.",
            hint=f"Use 1 to {MAX_KEY_BYTES} bytes of UTF-8 without NUL.",
        )
    return key


def check_value(key: str, value: object) -> bytes:
    """Return ``value`` as bytes when it may be stored, else raise SerializationError naming ``key``."""
    if not isinstance(value, bytes | bytearray | memoryview):
        raise SerializationError(
            f"The value of store key {shown(key)} is {type(value).__name__}, not bytes.",
            hint="Encode it before it is stored.",
        )
    data = bytes(value)
    if len(data) > MAX_VALUE_BYTES:
        raise SerializationError(
            f"The value of store key {shown(key)} has {len(data)} bytes.",
            hint=f"The limit is {MAX_VALUE_BYTES} bytes; keep large data elsewhere and store where it is.",
        )
    return data


def key_range(prefix: str, start: str | None, end: str | None) -> tuple[str, str | None]:
    """The first possible key and the first key beyond, None for no end."""
    low = max(_bound(prefix), _bound(start or ""))
    ends = [bound for bound in (_successor(prefix), None if end is None else _bound(end)) if bound is not None]
    return low, min(ends, default=None)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise SerializationError(
            f"Store key {shown(text)} is not valid Unicode.", hint="Remove the lone surrogates from it."
        ) from error


def _bound(text: str) -> str:
    _encoded(text)
    head, nul, _ = text.partition("\0")
    # Databases refuse NUL. No key has one, so the keys from "a\0..." on are those from "a\x01" on.
    return f"{head}\x01" if nul else text


def _successor(prefix: str) -> str | None:
    """The least string beyond all that start with ``prefix``."""
    if "\0" in prefix:
        return _bound(prefix)
    for index in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[index])
        if code < _LAST_CODE_POINT:
            return prefix[:index] + chr(_AFTER_SURROGATES if code == _BEFORE_SURROGATES else code + 1)
    return None
