"""Keeps what a finished fetch has mounted, and releases what an unfinished one has left behind.

What is mounted for another user is there on probation: it has a record beside it that says until when. Who has fetched
it keeps it by one message, once he has what he asked for and that is written down; its owner then keeps its subflows at
others the same way, and forgets the record. What nobody has kept in time is released, with its tree, unless it was
used. So whoever dies while a tree is fetched, at whichever hop: nothing stays behind that nobody knows of.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import Any

from coflows.broker.topology import door_queue
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoints import read
from coflows.errors import CoflowsError, ConflictError, UnroutableError
from coflows.failpoints import Failpoints
from coflows.model.layout import KEEPING, done_prefix, keeping_key
from coflows.model.messages import new_message_id
from coflows.model.wire import MAX_TREE, Keep
from coflows.releasing import ask_release, release_trees
from coflows.store.base import Entry

logger = logging.getLogger(__name__)

LIFETIMES = 2.0
"""What a fetch mounts is kept, or released, within this many times its timeout."""
PATIENCE = 30.0
"""Seconds after which somebody else tells the owners of subflows what its process seems not to have told."""
SHARE = 0.25
"""Part of their probation after which he does so when that is sooner, so that they hear it well before they go."""
OWN_QUEUE = 30.0
"""Seconds in which the worker's own queue is to be worked off."""
PAGE, PAGES = 500, 20
"""Records that are read at once, and how often in one sweep: of more, the next sweep sees the others."""


@dataclass(frozen=True, slots=True)
class Probation:
    """What is recorded of an instance that was mounted for ``client``. ``until`` (seconds since the epoch) it is to be
    kept; None: it is, and its subflows at other users (``remote``: ids by user) are still to be told. ``told_by``: when
    their probation ends; None: they may go when who fetched them could not tell."""

    client: str
    until: float | None
    remote: Mapping[str, Sequence[str]] = field(default_factory=dict)
    at: float = field(default_factory=time.time)
    told_by: float | None = None

    @property
    def tell_at(self) -> float:
        """When somebody else than its process tells the owners of the subflows."""
        left = PATIENCE if self.told_by is None else SHARE * (self.told_by - self.at)
        return self.at + min(PATIENCE, left)

    def encode(self) -> bytes:
        """The bytes of it; ``decode`` reads them back."""
        return encode({name: getattr(self, name) for name in self.__slots__})

    @classmethod
    def decode(cls, data: bytes) -> Probation:
        """Read a record of the user's own store."""
        value: dict[str, Any] = read(data)
        return cls(**value)


def tell_kept(cl: Client, flow_id: str, remote: Mapping[str, Sequence[str]]) -> None:
    """Keep the subflows, at other users, of an instance that is kept. Does not wait; the record of ``flow_id`` goes
    when all of them are told, and until then a sweep tells them again."""

    def told() -> None:
        try:
            cl.store.commit_async(_ignore, deletes=[keeping_key(flow_id)])
        except CoflowsError as error:
            logger.debug("The record of %s stays until the next sweep: %s", flow_id, error)

    _when_all(_tell(cl, remote), told)


def handle_keep(cl: Client, sender: str, flow_ids: Iterable[str], failpoints: Failpoints) -> None:
    """Keep instances that ``sender`` has mounted. Those that are kept already, or gone, are passed over."""
    found = cl.store.get_many(keeping_key(flow_id) for flow_id in flow_ids)
    _keep(cl, [entry for entry in found.values() if Probation.decode(entry.value).client == sender], failpoints)


def sweep(cl: Client, now: float, failpoints: Failpoints, start: str | None = None) -> str | None:
    """Release what nobody has kept in time, from a place on; gives where to go on, None at the end: what somebody has
    on probation for years hides nothing. Needs a get_instance worker of this user's, whose queue is worked off first: a
    message that keeps something may wait in it."""
    for _ in range(PAGES):
        page = cl.store.scan(KEEPING, start=start, limit=PAGE)
        _sweep(cl, page, now, failpoints)
        if len(page) < PAGE:
            return None
        start = f"{page[-1].key}\x01"
    return start


def _sweep(cl: Client, page: Sequence[Entry], now: float, failpoints: Failpoints) -> None:
    records = {entry.key: Probation.decode(entry.value) for entry in page}
    for key, one in records.items():
        if one.until is None and now > one.tell_at:
            tell_kept(cl, key.removeprefix(KEEPING), one.remote)
    due = [key for key, one in records.items() if one.until is not None and now > one.until]
    if not due:
        return
    ask_release(cl, cl.user_id, []).result(OWN_QUEUE)
    used: list[Entry] = []
    for key, entry in cl.store.get_many(due).items():
        one, flow_id = Probation.decode(entry.value), key.removeprefix(KEEPING)
        if one.until is None:
            continue
        if cl.store.keys(done_prefix(flow_id), limit=1):
            used.append(entry)
            continue
        logger.info("Nobody has kept instance %s, mounted for user %s; it is released.", flow_id, one.client)
        release_trees(cl, [flow_id], one.client, final=False)
        cl.store.commit(deletes=[key])
    _keep(cl, used, failpoints)


def _keep(cl: Client, entries: Sequence[Entry], failpoints: Failpoints) -> None:
    remote: dict[str, list[str]] = {}
    for entry in entries:
        for user_id, flow_ids in Probation.decode(entry.value).remote.items():
            remote.setdefault(user_id, []).extend(flow_ids)
    for future in wait(_tell(cl, remote)).done:
        if future.exception() is not None and not isinstance(future.exception(), UnroutableError):
            future.result()
    failpoints.reach("mid_keep")
    if entries:
        try:
            cl.store.commit(
                deletes=[entry.key for entry in entries], conditions={entry.key: entry.version for entry in entries}
            )
        except ConflictError:
            logger.debug("They were kept, or released, by another worker.")


def _tell(cl: Client, remote: Mapping[str, Sequence[str]]) -> list[Future[None]]:
    return [
        cl.session.send(door_queue(user_id).name, user_id, new_message_id(), Keep(flow_ids=list(ids[n : n + MAX_TREE])))
        for user_id, ids in remote.items()
        for n in range(0, len(ids), MAX_TREE)
    ]


def _when_all(futures: Sequence[Future[None]], then: Callable[[], None]) -> None:
    """Call ``then`` when all have ended without an error, or with a user who is not there any more."""
    lock, left = threading.Lock(), [len(futures)]

    def ended(future: Future[None]) -> None:
        error = future.exception()
        if error is not None and not isinstance(error, UnroutableError):
            return
        with lock:
            left[0] -= 1
            last = left[0] == 0
        if last:
            then()

    for future in futures:
        future.add_done_callback(ended)


def _ignore(_outcome: object) -> None:
    return None
