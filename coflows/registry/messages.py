"""What services say to each other besides pages: that one connects, and how it is taken."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, StringConstraints

from coflows.model.closed import Closed
from coflows.registry.page import Cursor, LogId, Offer

Url = Annotated[str, StringConstraints(max_length=500)]


class _Message(Closed):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Announcement(_Message):
    """A service connects: what it says of itself. ``fresh``: its log is to be read from the start."""

    offer: Offer
    fresh: bool = False


class Target(_Message):
    """A service is told by its owner to connect to another one."""

    url: Url


class Welcome(_Message):
    """A service is connected: to whom, and up to where its log is known there; with what it signed itself before, where
    that is later than what it says now."""

    user_id: str
    url: str
    organization: str
    registry: bool
    feed: bool
    log: LogId
    cursor: Cursor
    later: Offer | None = None
