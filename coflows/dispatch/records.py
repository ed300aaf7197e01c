"""What a committed turn leaves behind: all that it sent, so that it can be sent again but never be run again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from coflows.codec.wire import decode, encode
from coflows.model.messages import ReplyAddress

MAX_RECORD = 64 * 2**20


class Outgoing(NamedTuple):
    """An encoded payload on its way: to which queue, for whom. ``answers`` is the message it replies to, None for a
    message that is no reply."""

    queue: str
    recipient: str
    message_id: str
    answers: str | None
    data: bytes
    ordered: str | None = None
    """The instance within which the message's order is kept, when it goes to one."""

    @property
    def session(self) -> bool:
        """Whether it goes to a session, which takes one reply to each call and no more."""
        return is_session(self.queue)


def is_session(queue: str) -> bool:
    """Whether a queue is that of a session's replies. A dispatch point may have "session" in its name too."""
    return queue.split(".", 3)[2:3] == ["session"]


@dataclass(slots=True)
class TurnRecord:
    """A turn that was committed ``at`` (seconds since the epoch), what it sent, and ``until`` when its message says
    that it is valid. ``sender`` is who sent its message, where no answer to him tells that."""

    sent: Sequence[Outgoing]
    until: int = 0
    at: float = field(default_factory=time.time)
    sender: str | None = None

    @classmethod
    def of(cls, message_id: str, sender: str, sent: Sequence[Outgoing], until: int) -> TurnRecord:
        """The record of the turn of ``sender``'s message, committed now."""
        record = cls(sent, until)
        if record.answer_to(message_id, sender) is None:
            record.sender = sender
        return record

    def encode(self) -> bytes:
        """The bytes of it; ``decode`` reads them back."""
        value = {"at": self.at, "until": self.until, "sent": self.sent}
        return encode(value if self.sender is None else {**value, "sender": self.sender})

    @classmethod
    def decode(cls, data: bytes) -> TurnRecord:
        """Read a record of the user's own store."""
        value = decode(data, max_bytes=MAX_RECORD)
        return cls([Outgoing(*fields) for fields in value["sent"]], value["until"], value["at"], value.get("sender"))

    def is_of(self, message_id: str, sender: str) -> bool:
        """Whether ``sender`` sent the message of this turn: nobody else learns that there was one. Of a record that was
        written before it told, everybody may have."""
        answered = {one.recipient for one in self.sent if one.answers == message_id}
        return sender in answered or sender == self.sender or (not answered and self.sender is None)

    def answer_to(self, message_id: str, recipient: str) -> Outgoing | None:
        """What this turn answered to ``recipient``'s message, or None."""
        return next((one for one in self.sent if one.answers == message_id and one.recipient == recipient), None)


@dataclass(frozen=True, slots=True)
class PushCall:
    """A message sent ``at`` (seconds since the epoch) by a flow that wants the reply as a turn: who may answer, who
    waits for the outcome, and by which ``chain`` of calls the flow came to ask."""

    owner: str
    origin: ReplyAddress | None
    at: float = field(default_factory=time.time)
    chain: list[Any] | None = None

    def encode(self) -> bytes:
        """The bytes of it; ``decode`` reads them back."""
        origin = self.origin.to_dict() if self.origin else None
        return encode({"owner": self.owner, "origin": origin, "at": self.at, "chain": self.chain})

    @classmethod
    def decode(cls, data: bytes) -> PushCall:
        """Read a record of the user's own store; one that was written before it had a date has that of 1970."""
        value: dict[str, Any] = decode(data, max_bytes=MAX_RECORD)
        origin = value["origin"]
        address = ReplyAddress.from_dict(origin) if origin else None
        return cls(value["owner"], address, value.get("at", 0.0), value.get("chain"))
