"""Messages that are opened and wait until it is their senders' turns to be read: none of them keeps the others out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Generic, NamedTuple, Protocol, TypeVar

from coflows.broker.base import Delivery
from coflows.errors import CoflowsError
from coflows.identity.sealing import Opened as Envelope
from coflows.parcel import Parcel
from coflows.quotas.fair_queue import FairQueue
from coflows.session import Incoming, Session

logger = logging.getLogger(__name__)

Payload = TypeVar("Payload")

ROUND, ROUND_OF_MANY = 256, 64
"""Messages that are read before what was read goes on, about; the latter when several senders wait."""
PIECE = 32
"""Messages of one sender that are read before it is the next one's turn."""
MAX_OPENED = 12 * 2**20
"""Weight of messages that are opened, and wait for their senders' turns; more stay sealed."""
MAX_READ = 2 * 2**20
"""Bytes that messages take in memory which are read, and so taken in, at a time."""
ITEM_WEIGHT, BYTE_WEIGHT = 500, 4
"""What a message weighs, and each byte of it: of large ones few are opened ahead."""


class Queue(Protocol):
    """Where deliveries come from."""

    @property
    def name(self) -> str:
        """The queue's name."""

    @property
    def era(self) -> int:
        """Another one once all that was not worked off has gone back."""

    @property
    def full(self) -> bool:
        """Whether so much of it is in hand that nothing more is to be read now."""


From = TypeVar("From", bound=Queue)


class Piece(NamedTuple, Generic[From]):
    """Messages of one delivery that are opened, and wait to be read. ``era`` is that of their source: in another one
    the delivery has gone back."""

    number: int
    source: From
    era: int
    parcel: Parcel
    opened: Envelope
    weight: int


class Read(NamedTuple, Generic[From, Payload]):
    """A piece that is read."""

    piece: Piece[From]
    messages: Sequence[tuple[Incoming, Payload]]


class Opened(Generic[From, Payload]):
    """Not thread-safe. What somebody sends is read when it is his turn: how much it is, is not the others' loss.
    ``payload_of`` makes of a message what it is, or raises CoflowsError."""

    def __init__(self, session: Session, payload_of: Callable[[Incoming], Payload]) -> None:
        self._session = session
        self._payload_of = payload_of
        self._pieces: FairQueue[str, Piece[From]] = FairQueue()
        self._numbers = count(1)
        self._weight = 0
        """Of what is in it, less what is aside."""
        self._aside: dict[From, list[tuple[str, Piece[From]]]] = {}
        """What came from queues that are full now, which holds up nothing else. Of one it is no more than was opened
        before that."""

    @property
    def full(self) -> bool:
        """Whether what comes stays sealed for now."""
        return self._weight >= MAX_OPENED

    @property
    def goes_on(self) -> bool:
        """Whether ``next`` has something to give, without any queue having become less full."""
        return bool(self._pieces)

    def add(self, delivery: Delivery, source: From) -> None:
        """Open a delivery; what nobody can open is rejected."""
        try:
            opened = self._session.open(delivery.body)
        except Exception as error:
            self._session.refusals.reject(delivery, self._refusal(delivery.queue, error))
            return
        items = opened.items
        parcel = Parcel(delivery, len(items), partial(self._session.refusals.reject, delivery))
        for first in range(0, len(items), PIECE):
            some = items[first : first + PIECE]
            weight = sum(BYTE_WEIGHT * len(item.payload) + ITEM_WEIGHT for item in some)
            envelope = opened if len(some) == len(items) else replace(opened, items=some)
            self._pieces.push(opened.sender, Piece(next(self._numbers), source, source.era, parcel, envelope, weight))
            self._weight += weight

    def next(self) -> list[Read[From, Payload]]:
        """What is to be taken in now. Whose turn it is says what that is, and what came first says in which order.
        What has gone back is forgotten; what nobody can read is rejected, with all of its delivery once that is done.
        Nothing is given of what comes from full queues."""
        self._come_back()
        most = ROUND if len(self._pieces.owners) < 2 else ROUND_OF_MANY
        taken: list[Read[From, Payload]] = []
        weight = 0
        while most > 0 and weight < MAX_READ and (found := self._pieces.pop()) is not None:
            piece = found[1]
            self._weight -= piece.weight
            if piece.era != piece.source.era:
                continue
            if piece.source.full or piece.source in self._aside:  # It may have become less full just now.
                self._aside.setdefault(piece.source, []).append(found)
                continue
            most -= len(piece.opened.items)
            try:
                messages = [(one, self._payload_of(one)) for one in self._session.read_all(piece.opened)]
            except Exception as error:
                reason = self._refusal(piece.source.name, error)
                piece.parcel.reject(len(piece.opened.items), reason)
                continue
            weight += sum(incoming.weight for incoming, _ in messages)
            taken.append(Read(piece, messages))
        return sorted(taken, key=lambda one: one.piece.number)

    def _come_back(self) -> None:
        """What is aside goes on, before what came after it, where its queue is full no more."""
        for source in [one for one in self._aside if not one.full]:
            for sender, piece in reversed(self._aside.pop(source)):
                self._pieces.push_first(sender, piece)
                self._weight += piece.weight

    def _refusal(self, queue: str, error: Exception) -> str:
        """Why something is rejected, as its dead letter says it."""
        if isinstance(error, CoflowsError):
            logger.warning("Rejected a message from %s: %s", queue, error)
            self._session.refusals.count(error)
            return f"{error.code}: {error}"
        # A mistake of ours, which must not cost the messages beside it.
        logger.error("A message from %s could not be read; it is rejected.", queue, exc_info=error)
        return f"internal: {error!r}"
