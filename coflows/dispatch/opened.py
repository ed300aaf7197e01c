"""Messages that are opened and wait until it is their senders' turn: none of them keeps the others out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.dispatch.job import Source
from coflows.errors import CoflowsError
from coflows.identity.sealing import Opened as Envelope
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
MAX_OPENED = 8 * 2**20
"""Bytes of messages that are opened, and wait for their senders' turns; more stay sealed."""
MAX_READ = 2 * 2**20
"""Bytes that messages take in memory which are read, and so taken in, at a time."""
ITEM_BYTES = 500
"""That a message takes in memory besides its payload, about."""
Payload = Call | Recall | Cancel | Replay


class Piece(NamedTuple):
    """Messages of one delivery that are opened, and wait to be read. ``era`` is that of their source: in another one
    the delivery has gone back."""

    number: int
    source: Source
    era: int
    parcel: Parcel
    opened: Envelope
    weight: int


class Read(NamedTuple):
    """A piece that is read."""

    piece: Piece
    messages: Sequence[tuple[Incoming, Payload]]


class Opened:
    """Not thread-safe. What somebody sends is read when it is his turn: how much it is, is not the others' loss."""

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

    def add(self, delivery: Delivery, source: Source) -> None:
        """Open a delivery; what nobody can open is rejected."""
        try:
            opened = self._session.open(delivery.body)
        except Exception as error:
            delivery.reject(self._refusal(delivery.queue, error))
            return
        items = opened.items
        parcel = Parcel(delivery, len(items))
        for first in range(0, len(items), PIECE):
            some = items[first : first + PIECE]
            weight = sum(len(item.payload) + ITEM_BYTES for item in some)
            envelope = opened if len(some) == len(items) else replace(opened, items=some)
            self._pieces.push(opened.sender, Piece(next(self._numbers), source, source.era, parcel, envelope, weight))
            self._weight += weight

    def next(self) -> list[Read]:
        """What is to be taken in now. Whose turn it is says what that is, and what came first says in which order.
        What has gone back is forgotten; what nobody can read is rejected, with all of its delivery once that is
        done."""
        most = ROUND if len(self._pieces.owners) < 2 else ROUND_OF_MANY
        taken: list[Read] = []
        weight = 0
        while most > 0 and weight < MAX_READ and (found := self._pieces.pop()) is not None:
            piece = found[1]
            self._weight -= piece.weight
            if piece.era != piece.source.era:
                continue
            most -= len(piece.opened.items)
            try:
                messages = [(one, self._payload(one)) for one in self._session.read_all(piece.opened)]
            except Exception as error:
                reason = self._refusal(piece.source.name, error)
                piece.parcel.reject(len(piece.opened.items), reason)
                continue
            weight += sum(incoming.weight for incoming, _ in messages)
            taken.append(Read(piece, messages))
        return sorted(taken, key=lambda one: one.piece.number)

    def _refusal(self, queue: str, error: Exception) -> str:
        """Why something is rejected, as its dead letter says it."""
        if isinstance(error, CoflowsError):
            logger.warning("Rejected a message from %s: %s", queue, error)
            self._session.refusals.count(error)
            return f"{error.code}: {error}"
        # A mistake of ours, which must not cost the messages beside it.
        logger.error("A message from %s could not be read; it is rejected.", queue, exc_info=error)
        return f"internal: {error!r}"

    def _payload(self, incoming: Incoming) -> Payload:
        value = incoming.value
        if isinstance(value, dict) and value.get("kind") == "call":
            return Call.from_dict(value)
        return read_payload(self._payloads, value)
