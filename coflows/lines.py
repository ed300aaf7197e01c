"""Messages on their way out: what gathers while a queue's last publish is unconfirmed leaves in one envelope."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from coflows.errors import UnroutableError
from coflows.identity.sealing import MAX_ITEMS, Item

MAX_BYTES = 256 * 1024
"""Payload bytes that are gathered into one envelope; a larger message goes alone."""
MAX_STREAMS = 100_000
KEEPS_PLACE = 15.0
"""Seconds for which a message that was refused keeps its place, should it be sent again: its receiver does not yet do
without it then."""
MAX_REFUSED = 10_000
Done = Callable[[BaseException | None], None]
Message = tuple[str, bytes, str | None]
"""A message's id, its payload, and what its order is kept within."""
Publish = Callable[[str, str, Sequence[Item]], "Future[None]"]
"""``publish(queue, recipient, items)``: seal and publish one envelope."""


class Place(NamedTuple):
    """The place of a message in the order of its stream."""

    stream: str
    number: int


class _Post:
    """What was posted together for one queue; its outcome is told when all of it is decided."""

    __slots__ = ("done", "error", "left")

    def __init__(self, done: Done, left: int) -> None:
        self.done = done
        self.left = left
        self.error: BaseException | None = None


class _Entry(NamedTuple):
    """A message that waits. ``ordered``: what it has just got its place in, None when it had one before."""

    item: Item
    post: _Post
    ordered: str | None


@dataclass(slots=True)
class _Line:
    """What waits for one queue, and whether an envelope to it is unconfirmed."""

    queue: str
    recipient: str
    waiting: deque[_Entry] = field(default_factory=deque)
    busy: bool = False

    def take(self) -> list[_Entry]:
        """The next envelope's worth, at least one message."""
        waiting = self.waiting
        taken = [waiting.popleft()]
        size = len(taken[0].item.payload)
        while waiting and len(taken) < MAX_ITEMS:
            size += len(waiting[0].item.payload)
            if size > MAX_BYTES:
                break
            taken.append(waiting.popleft())
        return taken


class Lines:
    """One line for each queue that is being sent to. A message to an idle line leaves at once. Messages of one queue
    leave in the order of ``post``, and so do their numbers. Thread-safe; with ``gather`` False every message leaves by
    itself."""

    def __init__(self, publish: Publish, *, gather: bool = True) -> None:
        self._publish = publish
        self._gather = gather
        self._lines: dict[str, _Line] = {}
        self._streams: OrderedDict[str, Place] = OrderedDict()
        self._refused: OrderedDict[tuple[str, str], tuple[Place, float]] = OrderedDict()
        """By what the order is kept within, and message: the places of what was refused, and until when."""
        self._lock = threading.Lock()

    def post(
        self,
        queue: str,
        recipient: str,
        message_id: str,
        payload: bytes,
        done: Done,
        *,
        ordered: str | None = None,
        place: Place | None = None,
    ) -> Place | None:
        """Send, and call ``done`` once, with None when the message is durable or with the error, from any thread.
        ``ordered`` names what the message's order is kept within (an instance): it gets the next place there, which is
        returned. ``place``: it has one already, from when it was sent first."""
        with self._lock:
            if ordered is not None:
                place = self._place(ordered, message_id)
            line = self._line(queue, recipient)
            line.waiting.append(_Entry(_item(message_id, payload, place), _Post(done, 1), ordered))
            if line.busy:
                return place
            batch = self._begin(line)
        self._send(line, batch)
        return place

    def post_many(self, queue: str, recipient: str, messages: Sequence[Message], done: Done) -> None:
        """``post`` of at least one (message id, payload, ordered); ``done`` is called once for all, with the first
        error."""
        with self._lock:
            line = self._line(queue, recipient)
            post = _Post(done, len(messages))
            for message_id, payload, ordered in messages:
                place = None if ordered is None else self._place(ordered, message_id)
                line.waiting.append(_Entry(_item(message_id, payload, place), post, ordered))
            batches = [] if line.busy else [self._begin(line)]
            while not self._gather and line.waiting:
                batches.append(self._begin(line))
        for batch in batches:
            self._send(line, batch)

    def _line(self, queue: str, recipient: str) -> _Line:
        line = self._lines.get(queue)
        if line is None:
            line = self._lines[queue] = _Line(queue, recipient)
        return line

    def _place(self, ordered: str, message_id: str) -> Place:
        if self._refused:
            place, until = self._refused.get((ordered, message_id), (None, 0.0))
            if place is not None and time.monotonic() < until:
                return place
        return self._next(ordered)

    def _next(self, ordered: str) -> Place:
        last = self._streams.pop(ordered, None)
        if last is None and len(self._streams) >= MAX_STREAMS:
            self._streams.popitem(last=False)  # What comes after it begins a new stream.
        place = Place(secrets.token_hex(8), 1) if last is None else Place(last.stream, last.number + 1)
        self._streams[ordered] = place
        return place

    def _take_back(self, entries: Sequence[_Entry]) -> None:
        """These were not kept. Where their numbers are the last ones of their stream they are given out again: nobody
        is to wait for a message that will not come."""
        for item, _, ordered in reversed(entries):
            if ordered is not None and self._streams.get(ordered) == (item.stream, item.number):
                self._streams[ordered] = Place(self._streams[ordered].stream, item.number - 1)

    def _decided(self, entries: Sequence[_Entry], error: BaseException | None) -> None:
        """What was refused keeps its place for a while, from when it was refused first."""
        if isinstance(error, UnroutableError):
            self._take_back(entries)
        elif error is not None or self._refused:
            until = time.monotonic() + KEEPS_PLACE
            for item, _, ordered in entries:
                if ordered is not None and item.stream is not None:
                    if error is None:
                        self._refused.pop((ordered, item.message_id), None)
                    else:
                        place = Place(item.stream, item.number)
                        self._refused.setdefault((ordered, item.message_id), (place, until))
            while len(self._refused) > MAX_REFUSED:
                self._refused.popitem(last=False)

    def _begin(self, line: _Line) -> list[_Entry]:
        line.busy = self._gather
        if self._gather:
            return line.take()
        return [line.waiting.popleft()]

    def _send(self, line: _Line, batch: list[_Entry] | None, decided: Sequence[_Post] = ()) -> None:
        """Send a batch, and tell who waits for the one before; those that follow too, as long as their outcome is known
        at once."""
        while batch is not None:
            try:
                published = self._publish(line.queue, line.recipient, [one.item for one in batch])
            except Exception as error:
                published = Future()
                published.set_exception(error)
            at_once = published.done()
            if not at_once:
                published.add_done_callback(partial(self._confirmed, line, batch))
            for post in decided:
                post.done(post.error)
            if not at_once:
                return
            batch, decided = self._sent(line, batch, published.exception())
        for post in decided:
            post.done(post.error)

    def _confirmed(self, line: _Line, batch: list[_Entry], published: Future[None]) -> None:
        self._send(line, *self._sent(line, batch, published.exception()))

    def _sent(
        self, line: _Line, batch: list[_Entry], error: BaseException | None
    ) -> tuple[list[_Entry] | None, list[_Post]]:
        """The outcome of a batch is known: the batch that is next, and who is to be told."""
        decided: list[_Post] = []
        with self._lock:
            self._decided(batch, error)
            following = self._begin(line) if line.waiting else None
            if following is None:
                line.busy = False
                if self._lines.get(line.queue) is line:
                    del self._lines[line.queue]
            for one in batch:
                post = one.post
                post.left -= 1
                post.error = post.error or error
                if not post.left:
                    decided.append(post)
        return following, decided


def _item(message_id: str, payload: bytes, place: Place | None) -> Item:
    return Item(message_id, payload) if place is None else Item(message_id, payload, place.stream, place.number)
