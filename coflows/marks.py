"""How many marks of what he took or gave back a user may leave in another one's store."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from coflows.model.layout import released_key
from coflows.store.base import Store

MOST = 10_000
"""Marks of one user. They outlive what they are about, and a request of his needs no instance to be taken back; beyond
them nothing is marked, and should the same request come again before its deadline, what it mounts has to be given back
anew."""
RECOUNT = 60.0
"""Seconds after which those of somebody who has too many are counted again: they are swept."""
MAX_USERS = 10_000


class Marks:
    """Of one process. Thread-safe; raises what the store raises."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def may_leave(self, user_id: str, more: int) -> bool:
        """Whether there is room for so many more of this user's, which count from now on."""
        with self._lock:
            count, at = self._counts.pop(user_id, (MOST, float("-inf")))
            now = time.monotonic()
            if count + more > MOST and now - at > RECOUNT:
                count, at = len(self._store.keys(released_key(user_id, ""), limit=MOST + 1)), now
            fits = count + more <= MOST
            self._counts[user_id] = (count + more if fits else count, at)
            if len(self._counts) > MAX_USERS:
                self._counts.popitem(last=False)
            return fits
