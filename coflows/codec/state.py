"""A flow's own state as bytes: msgpack where that is faithful, else cloudpickle; one leading byte tells which."""

from __future__ import annotations

from typing import Any

import msgpack

from coflows.codec import code
from coflows.errors import SerializationError
from coflows.model.messages import FlowMessage

_MSGPACK, _PICKLE = b"m", b"p"
_MESSAGE = 1
_PLAIN = (str, int, float, bool, bytes, type(None))


def encode_state(state: dict[str, Any]) -> bytes:
    """The bytes of a state. Messages in it are kept as msgpack too. Raises SerializationError that names the key of
    what cannot be kept at all."""
    if _faithful(state, 0):
        try:
            return _MSGPACK + bytes(msgpack.packb(state, default=_pack_message, strict_types=True))
        except (TypeError, ValueError, OverflowError):
            pass  # Something that only pickle holds, such as an integer of more than 64 bits.
    try:
        return _PICKLE + code.dumps(state)
    except Exception as error:  # pickling runs the objects' own code, which may raise anything
        key = next((name for name, value in state.items() if not _picklable(value)), "")
        raise SerializationError(
            f"Cannot keep flow_state[{key!r}]: {error}.",
            hint="Keep plain data in flow_state; open connections, locks and files in run().",
        ) from error


def decode_state(data: bytes) -> dict[str, Any]:
    """The state again; only for bytes of the user's own store."""
    kind, body = data[:1], data[1:]
    value = (
        msgpack.unpackb(body, ext_hook=_unpack_message, strict_map_key=False) if kind == _MSGPACK else code.loads(body)
    )
    if not isinstance(value, dict):
        raise SerializationError(f"Stored state is a {type(value).__name__}, not a dict.")
    return value


def _faithful(value: Any, depth: int) -> bool:
    """Whether msgpack gives back exactly this: no tuples, sets, subclasses or objects."""
    if depth > 100:
        return False
    kind = type(value)
    if kind is dict:
        return all(type(key) is str and _faithful(inner, depth + 1) for key, inner in value.items())
    if kind is list:
        return all(_faithful(inner, depth + 1) for inner in value)
    if kind is FlowMessage:
        return _faithful(value.data, depth + 1)
    return kind in _PLAIN


def _pack_message(value: Any) -> msgpack.ExtType:
    if type(value) is FlowMessage:
        return msgpack.ExtType(_MESSAGE, msgpack.packb(value.to_dict(), default=_pack_message, strict_types=True))
    raise TypeError(type(value).__name__)


def _unpack_message(number: int, data: bytes) -> Any:
    if number == _MESSAGE:
        return FlowMessage.from_dict(msgpack.unpackb(data, ext_hook=_unpack_message, strict_map_key=False))
    return msgpack.ExtType(number, data)


def _picklable(value: Any) -> bool:
    try:
        code.dumps(value)
    except Exception:
        return False
    return True
