"""A user's dead letters: messages that could not be worked off, to be looked at, replayed or discarded.

There are two kinds. What could not even be opened was rejected by the worker and lies in a queue of the broker's;
asking for the list moves it into the store. What was opened and given up (its workers died over it) is put there by the
worker, together with the reply that tells its sender. Both lie under ``dead:{id}``.
"""

from __future__ import annotations

import hashlib
import logging
import time
from dataclasses import dataclass
from typing import Any

from coflows.broker.topology import dead_letter_queue, dispatch_queue, own_queues
from coflows.client import Client
from coflows.codec.wire import decode, encode
from coflows.errors import (
    CoflowsError,
    ConflictError,
    DeadLetterNotFoundError,
    EnvelopeError,
    KeyRetiredError,
)
from coflows.model.layout import DEAD, attempts_key, dead_key, done_key
from coflows.model.messages import new_message_id
from coflows.model.wire import Replay
from coflows.store.base import ABSENT, Entry

logger = logging.getLogger(__name__)

MAX_RECORD = 2**26


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message given up for ``reason``; ``size`` in bytes, ``at`` in seconds since the epoch. Of one that was opened,
    the sender, the message's id and the instance are known."""

    id: str
    queue: str
    reason: str
    size: int
    at: float
    sender: str | None = None
    message_id: str | None = None
    flow_id: str | None = None


@dataclass(frozen=True, slots=True)
class OpenedLetter:
    """The record of a message that was opened: where it came in, who sent it, and its payload."""

    dispatch_point: str
    partition: int | None
    sender: str
    message_id: str
    flow_id: str
    reason: str
    payload: bytes

    @property
    def id(self) -> str:
        """The same for the same message."""
        return _digest(f"{self.sender}\0{self.flow_id}\0{self.message_id}".encode())

    def encode(self) -> bytes:
        """The bytes of it; ``read_opened`` reads them back."""
        return encode({"at": time.time(), **{name: getattr(self, name) for name in self.__slots__}})


def read_opened(data: bytes) -> OpenedLetter | None:
    """The record of an opened message; None for the other kind."""
    value = decode(data, max_bytes=MAX_RECORD)
    if "payload" not in value:
        return None
    value.pop("at")
    return OpenedLetter(**value)


def list_dead_letters(cl: Client) -> list[DeadLetter]:
    """All dead letters of the user, the oldest first; they stay."""
    _collect(cl)
    return sorted((_letter(entry) for entry in cl.store.scan(DEAD)), key=lambda letter: letter.at)


def show_dead_letter(cl: Client, letter_id: str) -> tuple[DeadLetter, Any]:
    """One dead letter and, where it could be opened, its payload. Raises DeadLetterNotFoundError."""
    _collect(cl)
    entry = _find(cl, letter_id)
    opened = read_opened(entry.value)
    return _letter(entry), None if opened is None else decode(opened.payload, max_bytes=MAX_RECORD)


def replay_dead_letters(cl: Client) -> list[DeadLetter]:
    """``replay_dead_letter`` of all that can be; gives those."""
    replayed = []
    for letter in list_dead_letters(cl):
        try:
            replayed.append(replay_dead_letter(cl, letter.id))
        except (EnvelopeError, DeadLetterNotFoundError) as error:
            logger.info("Dead letter %s is not replayed: %s", letter.id, error)
    return replayed


def replay_dead_letter(cl: Client, letter_id: str) -> DeadLetter:
    """Have a dead letter worked on again, as if it had just come. Replaying it twice is replaying it once: what was
    worked off in the meantime is not worked off again. Raises DeadLetterNotFoundError; and for what cannot be
    opened any more EnvelopeError (KeyRetiredError for what is sealed with a key that has ended)."""
    _collect(cl)
    entry = _find(cl, letter_id)
    letter, opened = _letter(entry), read_opened(entry.value)
    if opened is None:
        body = decode(entry.value, max_bytes=MAX_RECORD)["body"]
        _check_opens(cl, body)
        cl.broker.publish(letter.queue, body)
        _delete(cl, entry)
        return letter
    # What the sender was told is taken back; the letter itself goes when its message is worked off.
    undone = [done_key(opened.flow_id, opened.message_id), attempts_key(opened.flow_id, opened.message_id)]
    try:
        cl.store.commit(deletes=undone, conditions={entry.key: entry.version})
    except ConflictError:
        return letter
    queue = dispatch_queue(cl.user_id, opened.dispatch_point, opened.partition).name
    cl.session.send(queue, cl.user_id, new_message_id(), Replay(letter=letter_id)).result()
    return letter


def _check_opens(cl: Client, body: bytes) -> None:
    try:
        cl.session.try_open(body)
    except KeyRetiredError as error:
        hint = "Its sender has to send it again, as sessions that wait for a reply did: coflows dlq discard forgets it."
        raise KeyRetiredError(error.message, hint=hint) from error


def discard_dead_letter(cl: Client, letter_id: str) -> DeadLetter:
    """Forget a dead letter. Raises DeadLetterNotFoundError."""
    _collect(cl)
    entry = _find(cl, letter_id)
    _delete(cl, entry)
    return _letter(entry)


def _collect(cl: Client) -> None:
    """Move what the broker has into the store; twice the same is once."""
    queue = dead_letter_queue(cl.user_id).name
    while (delivery := cl.broker.get(queue)) is not None:
        key = dead_key(_digest(delivery.body))
        origin = delivery.origin or ""
        record = {
            "at": time.time(),
            # Where it is replayed to, and where the broker knows no accounts anybody may have written it.
            "queue": origin if origin.startswith(own_queues(cl.user_id)) else "",
            "reason": delivery.reason or "",
            "body": delivery.body,
        }
        try:
            cl.store.commit({key: encode(record)}, conditions={key: ABSENT})
        except ConflictError:
            pass
        except CoflowsError:
            delivery.requeue()
            raise
        delivery.ack()


def _find(cl: Client, letter_id: str) -> Entry:
    entry = cl.store.get(dead_key(letter_id)) if letter_id.isalnum() else None
    if entry is None:
        raise DeadLetterNotFoundError(
            f"There is no dead letter {letter_id!r}.", hint="`coflows dlq list` shows what there is."
        )
    return entry


def _delete(cl: Client, entry: Entry) -> None:
    cl.store.commit(deletes=[entry.key])


def _letter(entry: Entry) -> DeadLetter:
    value = decode(entry.value, max_bytes=MAX_RECORD)
    letter_id = entry.key.removeprefix(DEAD)
    if "payload" not in value:
        return DeadLetter(letter_id, value["queue"], value["reason"], len(value["body"]), value["at"])
    where = f"{value['dispatch_point']}.{'parallel' if value['partition'] is None else value['partition']}"
    return DeadLetter(
        letter_id,
        where,
        value["reason"],
        len(value["payload"]),
        value["at"],
        value["sender"],
        value["message_id"],
        value["flow_id"],
    )


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
