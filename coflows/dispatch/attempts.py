"""How often a message has been begun: one that its workers die over goes to the dead letters in the end."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass

from coflows.codec.wire import encode
from coflows.dispatch.parking import Claim
from coflows.endpoints import read
from coflows.model.layout import attempts_key
from coflows.store.base import ABSENT, Store

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0


def pause_before(attempt: int, message_id: str) -> float:
    """Seconds to wait before the ``attempt``-th attempt, the first being 1: none before the second, for most workers
    die of something else; then about twice as long each time. Every message has its own share of that: what ran beside
    a message that kills its worker is not to meet it again at each attempt, and be given up with it."""
    if attempt <= 2:
        return 0.0
    share = int.from_bytes(hashlib.blake2b(f"{message_id}.{attempt}".encode(), digest_size=2).digest()) / 2**16
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 3)) * (0.5 + share)


@dataclass(frozen=True, slots=True)
class Attempt:
    """The attempt at a message that comes next; ``number`` is 2 or more. A message's first attempt is not recorded: it
    costs nothing unless something goes wrong."""

    key: str
    number: int
    version: int

    def begin(self, store: Store, claim: Claim | None) -> None:
        """Record that it is begun now. ``claim``: whose holder alone may. Raises ConflictError or what the store
        raises."""
        conditions = {self.key: self.version}
        if claim is not None:
            conditions[claim.key] = claim.version
        store.commit({self.key: encode({"number": self.number, "at": time.time()})}, conditions=conditions)


def next_attempt(store: Store, flow_id: str, message_id: str) -> Attempt:
    """The next attempt at a message that was delivered before."""
    key = attempts_key(flow_id, message_id)
    entry = store.get(key)
    return Attempt(key, 2, ABSENT) if entry is None else Attempt(key, read(entry.value)["number"] + 1, entry.version)
