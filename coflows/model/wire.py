"""What is inside an envelope besides calls and replies (``calls.py``): requests, checked as they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError

from coflows.errors import SerializationError
from coflows.model.closed import NAMED, Closed, at_most, problems
from coflows.model.names import (
    check_dispatch_point,
    check_endpoint,
    check_flow_id,
    check_subflow_key,
    check_token,
    check_user_id,
)

MAX_DEPTH = 64
"""How deep a tree of instances may be."""
MAX_FAN_OUT = 512
"""How many subflows one flow may have."""
MAX_TREE = 2_000
"""How many instances one fetch may mount over all users."""
MAX_GRANT = 4_096
"""Characters of a grant."""

PayloadT = TypeVar("PayloadT")

Token = Annotated[str, AfterValidator(check_token)]
FlowId = Annotated[str, AfterValidator(check_flow_id)]
UserId = Annotated[str, AfterValidator(check_user_id)]
Endpoint = Annotated[str, AfterValidator(check_endpoint)]
Point = Annotated[str, AfterValidator(check_dispatch_point)]
SubflowKey = Annotated[str, AfterValidator(check_subflow_key)]


class Payload(Closed):
    """Base of all payloads: strict, closed and immutable."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict."""
        return self.model_dump()


class Recall(Payload):
    """Ask for the recorded reply to a message sent before."""

    kind: Literal["recall"] = "recall"
    flow_id: FlowId
    message_id: Token
    session: Token


class Cancel(Payload):
    """The sender of a message no longer wants it worked off."""

    kind: Literal["cancel"] = "cancel"
    flow_id: FlowId
    message_id: Token


class Replay(Payload):
    """From a user to his own worker: work a dead letter of the store off."""

    kind: Literal["replay"] = "replay"
    letter: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class FetchItem(Payload):
    """One instance asked for: at which endpoint, with which overrides."""

    key: SubflowKey
    flow_endpoint: Endpoint
    config_overrides: Annotated[dict[str, Any], NAMED] = Field(default_factory=dict)
    initial_state: Annotated[dict[str, Any] | None, NAMED] = None
    dispatch_point_override: Point | None = None


class ChainLink(Payload):
    """One hop of the path that led to a fetch."""

    user_id: UserId
    flow_endpoint: Endpoint


class Fetch(Payload):
    """Ask a user for instances of his flows. ``chain`` is the path that led here; ``deadline`` is in seconds since the
    epoch, and so is ``keep_by``: what is not kept by then (``Keep``) may be released. None: it need not be kept.
    ``grants`` are tokens by the keys of their items; ``root`` is who began the fetch, None: the sender."""

    kind: Literal["fetch"] = "fetch"
    request_id: Token
    session: Token
    items: list[FetchItem] = Field(min_length=1, max_length=MAX_FAN_OUT)
    chain: list[ChainLink] = Field(default_factory=list, max_length=MAX_DEPTH + 1)
    deadline: float
    keep_by: float | None = None
    grants: Annotated[dict[SubflowKey, Annotated[str, Field(max_length=MAX_GRANT)]], at_most(MAX_FAN_OUT)] = Field(
        default_factory=dict
    )
    root: UserId | None = None

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict, without what not every peer knows and this request does not need."""
        value = super().to_dict()
        return {key: one for key, one in value.items() if key not in ("grants", "root") or one}


class Keep(Payload):
    """The fetch that mounted these instances is finished: they stay."""

    kind: Literal["keep"] = "keep"
    flow_ids: list[FlowId] = Field(max_length=MAX_TREE)


class Release(Payload):
    """Give instances back: those listed, or all that ``withdrawn`` (a fetch's request id) mounted or will mount."""

    kind: Literal["release"] = "release"
    request_id: Token
    session: Token
    flow_ids: list[FlowId] = Field(default_factory=list, max_length=MAX_TREE)
    withdrawn: Token | None = None


class Hello(Payload):
    """The sender has a new key; his certificate."""

    kind: Literal["hello"] = "hello"
    certificate: bytes = Field(max_length=1024)


DispatchPayload = Annotated[Recall | Cancel | Replay, Field(discriminator="kind")]
"""What a dispatch queue carries besides calls (``calls.py``)."""
DoorPayload = Annotated[Fetch | Keep | Release | Hello, Field(discriminator="kind")]


def read_payload(adapter: TypeAdapter[PayloadT], value: object) -> PayloadT:
    """Check decoded data against a payload type; raises SerializationError that names the first bad field."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        where, what, _ = problems(error)[0]
        raise SerializationError(f"Payload is malformed at {where or 'the top'}: {what}.") from error


def as_mapping(value: object) -> Mapping[str, Any]:
    """``value`` when it is a mapping, else SerializationError."""
    if isinstance(value, Mapping):
        return value
    raise SerializationError(f"Expected a mapping, not {type(value).__name__}.")
