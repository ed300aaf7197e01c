"""What flows send each other: a message, and the address that its reply goes to."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coflows.errors import SerializationError
from coflows.model.names import check_dispatch_point, check_flow_id, check_token, check_user_id

LATEST = 253_402_300_800.0
"""Seconds since the epoch at which the year 10,000 begins, where the calendar of ``datetime`` ends."""


def new_message_id() -> str:
    """A random id: 32 lowercase hex digits, of which the first 12 are the time in milliseconds (as in a UUID of version
    7), so that what is stored under ids of the same time lies together."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def check_moment(value: object) -> float:
    """Return ``value`` when it is a time of the calendar, else raise SerializationError: flows reckon with it."""
    if type(value) is float and 0.0 <= value < LATEST:
        return value
    raise SerializationError(f"{str(value)[:80]!r} is no time in seconds since the epoch.")


class ReplyMode(StrEnum):
    """Where the reply to a message goes."""

    NO_REPLY = "no_reply"
    """Nowhere: nobody waits for it."""
    PUSH = "push"
    """Into the mailbox of the instance that asked, as a new turn."""
    STORAGE = "storage"
    """To the session that asked, and on record at the flow until it is fetched."""


@dataclass(slots=True)
class ReplyAddress:
    """Where to send the reply to one message: a session of ``user_id``, or the mailbox of one of his instances.

    ``message_id`` is the message being answered. ``session`` is set for STORAGE; ``flow_id``, ``dispatch_point`` and
    ``partition`` (None: the point's parallel queue) for PUSH.
    """

    mode: ReplyMode
    user_id: str
    message_id: str
    session: str | None = None
    flow_id: str | None = None
    dispatch_point: str | None = None
    partition: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict; ``from_dict`` reads it back."""
        return {name: getattr(self, name) for name in self.__slots__ if getattr(self, name) is not None}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> ReplyAddress:
        """Check and build; raises NameInvalidError or SerializationError. Safe on data from other users."""
        try:
            return cls.proven(value, check_user_id(value["user_id"]), check_token(value["message_id"]))
        except (KeyError, TypeError) as error:
            raise SerializationError(f"Reply address is malformed: {error}.") from error

    @classmethod
    def proven(cls, value: Mapping[str, Any], user_id: str, message_id: str) -> ReplyAddress:
        """``from_dict`` where the envelope tells who sent the message and under which id, whatever ``value`` says."""
        mode = value.get("mode")
        if mode == "storage":
            return cls(ReplyMode.STORAGE, user_id, message_id, check_token(value.get("session"), "Session id"))
        if mode == "no_reply":
            return cls(ReplyMode.NO_REPLY, user_id, message_id)
        if mode != "push":
            raise SerializationError(f"Reply address has the mode {str(mode)[:80]!r}.")
        partition = value.get("partition")
        if partition is not None and not (type(partition) is int and 0 <= partition < 4096):
            raise SerializationError(f"Reply address has partition {str(partition)[:80]!r}.")
        return cls(
            ReplyMode.PUSH,
            user_id,
            message_id,
            flow_id=check_flow_id(value.get("flow_id")),
            dispatch_point=check_dispatch_point(value.get("dispatch_point")),
            partition=partition,
        )


@dataclass(slots=True)
class FlowMessage:
    """A message to a flow, or a reply from one.

    ``data`` is what the author sees; everything else is filled in by the runtime. ``input_message_id`` is the id of
    the message that this one answers. ``sender`` (a user id) is proven by the envelope the message came in and None
    on one that was not received. ``reply_to`` is where a reply to this message goes, None when nobody waits.
    ``failure`` (see ``Failure``) is set, and ``data`` empty, on one that tells of a failure (``Flow.takes_failures``).
    ``root`` is who began the chain of calls that a received message came by, as its sender vouches. A sender may set
    ``deadline`` (seconds since the epoch: neither the message nor what comes of it is begun later) and ``budget`` (how
    many further calls may come of it); a turn cannot give more than it was given.
    Not thread-safe; the runtime never changes a message that the author holds.
    """

    data: dict[str, Any]
    message_id: str = field(default_factory=new_message_id)
    input_message_id: str | None = None
    created_at: float = field(default_factory=time.time)
    sender: str | None = None
    src_flow_id: str | None = None
    reply_to: ReplyAddress | None = None
    failure: Mapping[str, Any] | None = None
    root: str | None = None
    deadline: float | None = None
    budget: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.data, dict):
            raise SerializationError(
                f"A message's data is a dict, not {type(self.data).__name__}.",
                hint='Wrap it, for instance {"value": ...}.',
            )

    @property
    def is_new(self) -> bool:
        """Whether it was made here to be sent, rather than received from somebody or made as a reply."""
        return self.sender is None and self.input_message_id is None

    def to_dict(self) -> dict[str, Any]:
        """A dict of plain values around ``data``; ``from_dict`` reads it back."""
        return {
            "data": self.data,
            "message_id": self.message_id,
            "input_message_id": self.input_message_id,
            "created_at": self.created_at,
            "sender": self.sender,
            "src_flow_id": self.src_flow_id,
            "reply_to": self.reply_to.to_dict() if self.reply_to else None,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FlowMessage:
        """Check and build; raises SerializationError or NameInvalidError. Safe on data from other users."""
        try:
            sender, source, answered = value.get("sender"), value.get("src_flow_id"), value.get("input_message_id")
            reply_to = value.get("reply_to")
            return cls(
                data=value["data"],
                message_id=check_token(value["message_id"]),
                input_message_id=None if answered is None else check_token(answered),
                created_at=check_moment(value["created_at"]),
                sender=None if sender is None else check_user_id(sender),
                src_flow_id=None if source is None else check_flow_id(source),
                reply_to=None if reply_to is None else ReplyAddress.from_dict(reply_to),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise SerializationError(f"Message is malformed: {error!r}.") from error
