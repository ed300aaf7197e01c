"""Durable timers: a message of an instance to itself, kept in the store until its turn is committed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from coflows.codec.wire import decode, encode
from coflows.errors import NameInvalidError
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.layout import due_key, timer_key
from coflows.model.names import check_token

MAX_RECORD = 2**26
LATEST = 2**47
"""Milliseconds since the epoch that fit into a timer's id."""
AGAIN = 10.0
"""Seconds after which a timer whose turn has not been committed is fired again: who fired it may be gone, or was before
its message was sent. Its message has the same id each time, so it is applied once."""


class Fired(NamedTuple):
    """A timer as it stands in the store. ``fired`` is when it was fired last (seconds since the epoch), 0 if never;
    ``chain`` is that of the calls it was set by."""

    data: dict[str, Any]
    fired: float = 0.0
    chain: list[Any] | None = None

    def encode(self) -> bytes:
        """The bytes of it; ``decode`` reads them back."""
        return encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Fired:
        """Read a record of the user's own store."""
        return cls(*decode(data, max_bytes=MAX_RECORD))


class Place(NamedTuple):
    """Whose timer it is, and the queue that its message goes to."""

    timer: str
    partition: int | None
    flow_id: str

    @property
    def due(self) -> float:
        """When it is due, in seconds since the epoch."""
        return due_of(self.timer)


class Review(NamedTuple):
    """What is to be done about the timers of a dispatch point: ``fire`` these keys, and look again at ``next`` (seconds
    since the epoch, None: there is none to wait for)."""

    fire: tuple[str, ...]
    next: float | None


def timer_id(due: float, source: str) -> str:
    """The id of a timer that is due then (seconds since the epoch), which is that of its message too: 32 hex digits, of
    which the first 12 are the time in milliseconds. ``source`` is an id that belongs to it alone."""
    return f"{min(max(int(due * 1000), 0), LATEST):012x}{source[12:]}"


def due_of(timer: str) -> float:
    """When a timer is due, in seconds since the epoch. Raises NameInvalidError for what is no timer's id."""
    return int(check_token(timer, "Timer")[:12], 16) / 1000


def timer_keys(address: InstanceAddress, timer: str) -> tuple[str, str]:
    """The two keys of an instance's timer: in the order of when it is due, and among those of the instance."""
    due_of(timer)
    flow_id = address.flow_id
    return due_key(address.dispatch_point, timer, address.partition, flow_id), timer_key(flow_id, timer)


def place_of(key: str) -> Place | None:
    """Read a key of a timer; None for one that is malformed."""
    parts = key.split(":")
    try:
        timer, partition, flow_id = parts[-3:]
        place = Place(timer, None if partition == "parallel" else int(partition), flow_id)
        due_of(timer)
    except (ValueError, NameInvalidError):
        return None
    return place


def review(timers: Iterable[tuple[str, Fired]], now: float) -> Review:
    """Decide, given the timers of a point by key in the order of when they are due."""
    fire: list[str] = []
    times: list[float] = []
    for key, one in timers:
        place = place_of(key)
        if place is None:
            continue
        at = max(place.due, one.fired + AGAIN if one.fired else 0.0)
        if at <= now:
            fire.append(key)
            at = now + AGAIN
        times.append(at)
        if place.due > now:
            break  # Those after it are due later still.
    return Review(tuple(fire), min(times, default=None))


def is_due(key: str, now: float) -> bool:
    """Whether the time of a timer has come; also of a key that is malformed, behind which others may be."""
    place = place_of(key)
    return place is None or place.due <= now


def is_timer(call: Call, sender: str, own: str) -> bool:
    """Whether a message is one of an instance to itself, as only a timer sends it."""
    return sender == own and call.src_flow_id == call.flow_id and call.answers is None and call.reply is None
