"""Pickles a user's own objects; alone touches cloudpickle. Never used on bytes that another user could have written."""

from __future__ import annotations

from typing import Any


def dumps(value: Any) -> bytes:
    """Bytes of any picklable object; raises what pickling raises."""
    import cloudpickle

    return bytes(cloudpickle.dumps(value))


def loads(data: bytes) -> Any:
    """The object again; only for bytes of the user's own store."""
    import cloudpickle

    return cloudpickle.loads(data)
