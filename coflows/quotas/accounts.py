"""What each caller has in hand at one worker, and whether there is room for more: counted in memory, without I/O."""

from __future__ import annotations

import math
import threading
from collections.abc import Hashable, Iterable
from itertools import repeat
from typing import NamedTuple

from coflows.quotas.bucket import TokenBucket
from coflows.quotas.quota import Quota

RETRY = 1.0
"""Seconds after which one who has too much in hand is to ask again."""
FORGET = 60.0
"""Seconds after which an account in which nothing happens is looked at, and forgotten when all has been made good."""


class Excess(NamedTuple):
    """Why there is no room: the limit that is reached, and the seconds after which there may be."""

    limit: str
    retry_after: float


class Account:
    """Of one caller; its changes are for the holder of the accounts' lock."""

    __slots__ = ("_bucket", "_limit", "_rate", "held", "in_hand", "quota", "room", "used")

    def __init__(self, quota: Quota, now: float) -> None:
        self.in_hand = self.held = 0
        self._bucket = TokenBucket(quota.burst, now)
        self.use(quota, now)

    def use(self, quota: Quota, now: float) -> None:
        """Its limits from now on."""
        self.quota, self.used = quota, now
        self._limit = math.inf if quota.messages is None else quota.messages
        self._rate = quota.bytes_per_second
        self.room = quota.in_hand

    def admit(
        self, size: int, now: float, *, always: bool = False, paid: bool = False, weight: int = 0
    ) -> Excess | None:
        """One more message of ``size`` bytes, ``weight`` of memory, until ``Accounts.leave``; or why not. ``always``:
        it is let in, and counts; ``paid``: its bytes have been counted before."""
        if self.in_hand >= self._limit and not always:
            return Excess("messages", RETRY)
        if self.held and self.held + weight > self.room and not always:
            return Excess("in_hand", RETRY)
        rate = self._rate
        if rate is not None and not paid:
            if always:
                self._bucket.charge(size)
            elif (wait := self._bucket.take(size, rate, self.quota.burst, now)) > 0.0:
                return Excess("bytes_per_second", wait)
        self.in_hand += 1
        self.held += weight
        return None

    def charge(self, size: int) -> None:
        """Bytes that were sent to the caller."""
        self._bucket.charge(size)

    def owes(self, now: float) -> bool:
        """Whether the caller has had more bytes than he may, and is to wait."""
        return self._rate is not None and self._bucket.level(self._rate, self.quota.burst, now) < 0.0

    def is_as_new(self, now: float) -> bool:
        """Whether a new one would not differ from it."""
        if self.in_hand:
            return False
        return self._rate is None or self._bucket.level(self._rate, self.quota.burst, now) >= self.quota.burst


class Accounts:
    """Those of all callers, by any key. Times are seconds of one monotonic clock. Thread-safe."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._accounts: dict[Hashable, Account] = {}

    def __len__(self) -> int:
        return len(self._accounts)

    def get(self, key: Hashable, quota: Quota, now: float) -> Account:
        """The account, new or not, with this quota from now on; for the holder of ``lock``."""
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = Account(quota, now)
        else:
            account.use(quota, now)
        return account

    def leave(self, accounts: Iterable[Account], weights: Iterable[int] = repeat(0)) -> None:
        """A message of each is over, that was admitted with this weight."""
        with self.lock:
            for account, weight in zip(accounts, weights):  # noqa: B905 (there may be weights without end)
                account.in_hand -= 1
                account.held -= weight

    def sweep(self, now: float) -> None:
        """Forget those that say nothing."""
        with self.lock:
            for key, account in list(self._accounts.items()):
                if not 0.0 <= now - account.used < FORGET and account.is_as_new(now):
                    del self._accounts[key]
