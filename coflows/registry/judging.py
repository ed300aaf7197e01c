"""Whether what is said of a node holds, beside what is known of it."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

ONLINE, OFFLINE, GONE = "online", "offline", "gone"
CLOCK_TOLERANCE = 600.0
"""Seconds by which the clocks of two machines may differ."""


class Known(NamedTuple):
    """What is known of a node: how far its records and beats are, and when it was last there (seconds)."""

    sequence: int
    beat: int
    seen: float
    state: str
    withdrawn: bool = False


class Times(NamedTuple):
    """After how many silent seconds a node counts as offline, and as gone."""

    offline_after: float
    ttl: float


class Verdict(Enum):
    """What to do with what is said."""

    RECORD = "take the record and the beat"
    BEAT = "take the beat"
    NOTHING = "it is known, or older than what is known"
    UNKNOWN = "a beat of a record that is not known"
    STALE = "it is so old that the node would be gone"
    AHEAD = "it is dated ahead, and would never be stale"


def judge(known: Known | None, sequence: int | None, beat: int, age: float, now: float, times: Times) -> Verdict:
    """Judge a beat, and the record with it unless ``sequence`` is None. ``age`` is how long ago the node was there, as
    whoever passes it on says; ``beat`` is in milliseconds of the node's own clock."""
    if known is not None and beat <= known.beat and (sequence is None or sequence <= known.sequence):
        return Verdict.NOTHING
    if age > times.ttl or beat / 1000 < now - times.ttl - CLOCK_TOLERANCE:
        return Verdict.STALE
    if is_ahead(beat, now):
        return Verdict.AHEAD
    if sequence is not None and (known is None or sequence > known.sequence):
        return Verdict.RECORD
    if known is None or known.withdrawn:
        return Verdict.UNKNOWN
    return Verdict.BEAT


def is_ahead(beat: int, now: float) -> bool:
    """Whether a beat is of a clock that goes too fast."""
    return beat / 1000 > now + CLOCK_TOLERANCE


def state_of(seen: float, now: float, times: Times) -> str:
    """Whether a node that was there at ``seen`` is online, offline or gone."""
    silent = now - seen
    return ONLINE if silent <= times.offline_after else OFFLINE if silent <= times.ttl else GONE
