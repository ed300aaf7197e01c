"""Messages that are opened and wait until it is their senders' turn: none of them keeps the others out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import count
from operator import attrgetter
from typing import NamedTuple

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.dispatch.job import Source
from coflows.errors import CoflowsError
from coflows.model.calls import Call
from coflows.model.wire import Cancel, DispatchPayload, Recall, Replay, read_payload
from coflows.parcel import Parcel
from coflows.quotas.fair_queue import FairQueue
from coflows.session import Incoming, Session

logger = logging.getLogger(__name__)

ROUND, ROUND_OF_MANY = 256, 64
"""Messages that are opened, and taken in, before turns go on, about; the latter when several senders wait."""
PIECE = 32
"""Messages of one sender that are taken in before it is the next one's turn."""
MAX_OPENED = 2 * 2**20
"""Bytes that messages take in memory which are opened, and wait for their senders' turns; more stay sealed."""


class Piece(NamedTuple):
    """Messages of one delivery that are opened and wait. ``era`` is that of their source: in another one the delivery
    has gone back."""

    number: int
    source: Source
    era: int
    parcel: Parcel
    items: Sequence[tuple[Incoming, Call | Recall | Cancel | Replay]]
    weight: int


class Opened:
    """Not thread-safe."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._payloads: TypeAdapter[Recall | Cancel | Replay] = TypeAdapter(DispatchPayload)
        self._pieces: FairQueue[str, Piece] = FairQueue()
        self._numbers = count(1)
        self._weight = 0
        """Of what is in it."""

    def __bool__(self) -> bool:
        return bool(self._pieces)

    @property
    def full(self) -> bool:
        """Whether what comes stays sealed for now."""
        return self._weight >= MAX_OPENED

    def add(self, delivery: Delivery, source: Source) -> int:
        """Open a delivery; what nobody can read is rejected. Gives how many messages there are."""
        try:
            opened = self._session.open(delivery.body)
            items = [(one, self._payload(one)) for one in self._session.read_all(opened)]
        except CoflowsError as error:
            logger.warning("Rejected a message from %s: %s", delivery.queue, error)
            self._session.refusals.count(error)
            delivery.reject(f"{error.code}: {error}")
            return 1
        except Exception as error:  # A mistake of ours, which must not cost the messages beside it.
            logger.exception("A message from %s could not be read; it is rejected.", delivery.queue)
            delivery.reject(f"internal: {error!r}")
            return 1
        parcel = Parcel(delivery, len(items))
        for first in range(0, len(items), PIECE):
            some = items[first : first + PIECE]
            weight = sum(incoming.weight for incoming, _ in some)
            self._pieces.push(opened.sender, Piece(next(self._numbers), source, source.era, parcel, some, weight))
            self._weight += weight
        return len(items)

    def next(self) -> list[Piece]:
        """What is to be taken in now. Whose turn it is says what that is, and what came first says in which order."""
        most = ROUND if len(self._pieces.owners) < 2 else ROUND_OF_MANY
        pieces: list[Piece] = []
        while most > 0 and (found := self._pieces.pop()) is not None:
            pieces.append(found[1])
            most -= len(found[1].items)
            self._weight -= found[1].weight
        return sorted(pieces, key=attrgetter("number"))

    def _payload(self, incoming: Incoming) -> Call | Recall | Cancel | Replay:
        value = incoming.value
        if isinstance(value, dict) and value.get("kind") == "call":
            return Call.from_dict(value)
        return read_payload(self._payloads, value)
