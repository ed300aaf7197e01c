"""Messages whose turns take long: kept in the store instead of the broker, each owned by the worker that works on it.

A parked message is acknowledged, so that no timeout of the broker's and no hand-over of its partition disturbs its
turn, whose commit is conditioned on the record here and no longer on the partition's lease. The record's version is the
proof of ownership: when its worker is gone another one adopts it, and what the first one may still commit is refused.
Whoever has the partition meanwhile keeps the instance's other messages waiting until the record is gone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from coflows.codec.wire import decode, encode
from coflows.errors import ConflictError
from coflows.lines import Place
from coflows.model.layout import done_key, parked_cancel_key, parked_key, parked_prefix
from coflows.store.base import ABSENT, Entry, Store

MAX_RECORD = 2**26


class Claim(NamedTuple):
    """A record of the store on whose version a turn's effects are conditioned."""

    key: str
    version: int


class Parked(NamedTuple):
    """A parked message: who works on it, from which queue it came (``partition`` None: the parallel one), who sent it
    under which id to which instance, its payload, and its place in its sender's order."""

    worker: str
    partition: int | None
    sender: str
    message_id: str
    flow_id: str
    payload: bytes
    place: Place | None = None
    letter: str | None = None

    def encode(self) -> bytes:
        """The bytes of it; ``decode`` reads them back."""
        return encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Parked:
        """Read a record of the user's own store."""
        *fields, place, letter = decode(data, max_bytes=MAX_RECORD)
        worker, partition, sender, message_id, flow_id, payload = fields
        there = None if place is None else Place(*place)
        return cls(worker, partition, sender, message_id, flow_id, payload, there, letter)


@dataclass(frozen=True, slots=True)
class Review:
    """What is to be done about the parked messages of a dispatch point: ``adopt`` those whose worker is gone, let
    others wait for what is ``held`` (instances whose message another worker has)."""

    adopt: tuple[str, ...]
    held: frozenset[str]


def review(parked: Iterable[tuple[str, Parked]], worker: str, alive: Collection[str]) -> Review:
    """Decide, given all parked messages by key, the name of this worker, and the workers that are there."""
    adopt: list[str] = []
    held: set[str] = set()
    for key, one in parked:
        if one.worker == worker:
            continue
        if one.partition is not None:
            held.add(one.flow_id)
        if one.worker not in alive:
            adopt.append(key)
    return Review(tuple(adopt), frozenset(held))


class ParkingLot:
    """The parked messages of one dispatch point. Thread-safe; raises what the store raises."""

    def __init__(self, store: Store, dispatch_point: str, worker: str) -> None:
        self.worker = worker
        self._store = store
        self._point = dispatch_point

    def park(self, messages: Iterable[tuple[Parked, Claim | None]]) -> list[Claim]:
        """Keep messages that this worker works on, all or none: unless the record of a turn of theirs is there. With
        each goes that on which its turn's effects were conditioned until now. Raises ConflictError when somebody else
        has one."""
        writes: dict[str, bytes] = {}
        conditions: dict[str, int] = {}
        for message, claim in messages:
            key = parked_key(self._point, message.partition, message.flow_id, message.message_id)
            writes[key] = message.encode()
            conditions |= {key: ABSENT, done_key(message.flow_id, message.message_id): ABSENT}
            if claim is not None:
                conditions[claim.key] = claim.version
        version = self._store.commit(writes, conditions=conditions)
        return [Claim(key, version) for key in writes]

    def adopt(self, key: str, worker: str) -> tuple[Parked, Claim]:
        """Take a message over that ``worker`` had. Raises ConflictError when it is gone or another worker was first."""
        entry = self._store.get(key)
        found = None if entry is None else Parked.decode(entry.value)
        if entry is None or found is None or found.worker != worker:
            raise ConflictError(f"Message {key} is not {worker}'s any more.", keys=(key,))
        mine = found._replace(worker=self.worker)
        version = self._store.commit({entry.key: mine.encode()}, conditions={entry.key: entry.version})
        return mine, Claim(entry.key, version)

    def entries(self, partition: int) -> list[Entry]:
        """The records of one partition."""
        return self._store.scan(parked_prefix(self._point, partition))

    def all_keys(self) -> list[str]:
        """The keys of all."""
        return self._store.keys(parked_prefix(self._point))

    def read(self, key: str) -> Parked | None:
        """A parked message without its payload, None when there is none."""
        entry = self._store.get(key)
        return None if entry is None else Parked.decode(entry.value)._replace(payload=b"")

    def key(self, job_key: tuple[str, str, str], partition: int | None) -> str:
        """The key of a message, given sender, instance and id."""
        return parked_key(self._point, partition, job_key[1], job_key[2])

    def has(self, partition: int | None, flow_id: str, message_id: str, sender: str) -> bool:
        """Whether this message of ``sender``'s is parked."""
        entry = self._store.get(parked_key(self._point, partition, flow_id, message_id))
        return entry is not None and Parked.decode(entry.value).sender == sender

    def cancel(self, partition: int | None, flow_id: str, message_id: str, sender: str) -> None:
        """Tell the worker that has it, whichever that is, that its sender no longer wants it."""
        key = parked_key(self._point, partition, flow_id, message_id)
        entry = self._store.get(key)
        if entry is not None and Parked.decode(entry.value).sender == sender:
            with suppress(ConflictError):  # It is over meanwhile.
                self._store.commit({parked_cancel_key(key): b""}, conditions={key: entry.version})

    def cancelled(self, claims: Iterable[Claim]) -> set[str]:
        """The keys of those whose senders no longer want them."""
        keys = {parked_cancel_key(claim.key): claim.key for claim in claims}
        return {keys[found] for found in self._store.get_many(keys)} if keys else set()

    def leave(self, claim: Claim) -> None:
        """The message is over without a commit of its own. Raises ConflictError when the record is gone, or another
        worker's."""
        self._store.commit(deletes=left_behind(claim), conditions={claim.key: claim.version})


def left_behind(claim: Claim) -> list[str]:
    """The keys that go with a parked message's end."""
    return [claim.key, parked_cancel_key(claim.key)]
