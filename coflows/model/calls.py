"""The two payloads of which every call needs one: the call and its reply, checked by hand since each message pays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from coflows.errors import CoflowsError, SerializationError
from coflows.model.messages import check_moment
from coflows.model.names import check_flow_id, check_token


@dataclass(slots=True)
class Call:
    """A message to an instance, or a push reply to one (``answers`` names the message that it answers), whose ``data``
    is None when it tells of a ``failure``.

    ``reply`` is the reply address less the user id and the message id, which the envelope proves. ``chain`` is that of
    ``chain.py``, as a list; None when the sender is its root.
    """

    flow_id: str
    data: dict[str, Any] | None = None
    created_at: float = 0.0
    src_flow_id: str | None = None
    reply: dict[str, Any] | None = None
    answers: str | None = None
    failure: dict[str, Any] | None = None
    chain: list[Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict, without what is None; ``from_dict`` reads it back."""
        value: dict[str, Any] = {"kind": "call", "flow_id": self.flow_id, "created_at": self.created_at}
        if self.data is not None:
            value["data"] = self.data
        if self.reply is not None:
            value["reply"] = self.reply
        if self.src_flow_id is not None:
            value["src_flow_id"] = self.src_flow_id
        if self.answers is not None:
            value["answers"] = self.answers
        if self.failure is not None:
            value["failure"] = self.failure
        if self.chain is not None:
            value["chain"] = self.chain
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Call:
        """Check and build; raises SerializationError that names the first bad field. Safe on data from other users."""
        _check_fields(value, _CALL, "flow_id")
        return cls(**{name: one for name, one in value.items() if name != "kind"})


@dataclass(slots=True)
class Reply:
    """What a session waits for: a message, a ``value`` of the runtime's own, or a failure. Or that it is ``pending``
    still; ``unknown`` when the message that it asks about never came: send it again."""

    answers: str
    data: dict[str, Any] | None = None
    message_id: str | None = None
    created_at: float = 0.0
    src_flow_id: str | None = None
    value: dict[str, Any] | None = None
    failure: dict[str, Any] | None = None
    pending: bool = False
    unknown: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict, without what is None or False; ``from_dict`` reads it back."""
        value: dict[str, Any] = {"kind": "reply", "answers": self.answers}
        for name in _OPTIONAL_REPLY:
            one = getattr(self, name)
            if one:
                value[name] = one
        if self.data is not None:
            value["data"] = self.data
        return value

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Reply:
        """Check and build; raises SerializationError that names the first bad field. Safe on data from other users."""
        _check_fields(value, _REPLY, "answers")
        return cls(**{name: one for name, one in value.items() if name != "kind"})


_OPTIONAL_REPLY = ("message_id", "created_at", "src_flow_id", "value", "failure", "pending", "unknown")


def _is(kind: type) -> Callable[[object], object]:
    def check(value: object) -> object:
        if type(value) is not kind:
            raise SerializationError(f"is a {type(value).__name__}, not a {kind.__name__}")
        return value

    return check


def _constant(expected: str) -> Callable[[object], object]:
    def check(value: object) -> object:
        if value != expected:
            raise SerializationError(f"is not {expected!r}")
        return value

    return check


_Fields = dict[str, Callable[[Any], object]]
_CALL: _Fields = {
    "kind": _constant("call"),
    "flow_id": check_flow_id,
    "data": _is(dict),
    "created_at": check_moment,
    "src_flow_id": check_flow_id,
    "reply": _is(dict),
    "answers": check_token,
    "failure": _is(dict),
    "chain": _is(list),
}
_REPLY: _Fields = {
    "kind": _constant("reply"),
    "answers": check_token,
    "data": _is(dict),
    "message_id": check_token,
    "created_at": check_moment,
    "src_flow_id": check_flow_id,
    "value": _is(dict),
    "failure": _is(dict),
    "pending": _is(bool),
    "unknown": _is(bool),
}


def _check_fields(value: object, fields: _Fields, required: str) -> None:
    if type(value) is not dict:
        raise SerializationError(f"Payload is a {type(value).__name__}, not a dict.")
    if required not in value:
        raise SerializationError(f"Payload has no {required}.")
    name = ""
    try:
        for name, one in value.items():
            fields[name](one)
    except KeyError:
        raise SerializationError(f"Payload has an unknown field {str(name)[:80]!r}.") from None
    except CoflowsError as error:
        raise SerializationError(f"Payload is malformed at {name}: {error}") from error
