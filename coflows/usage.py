"""What an owner keeps for each other user: the instances that are mounted for him, and the bytes of them.

Each instance has a record of its own, written and deleted with it; so the records are always right, and no two commits
meet in one. What they come to is added up from time to time, and in between what this process adds is known.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from coflows.codec.wire import encode
from coflows.endpoint_quotas import EndpointQuotas
from coflows.endpoints import read
from coflows.errors import QuotaExceededError
from coflows.instances import all_entries
from coflows.model.layout import usage_key, usage_prefix
from coflows.quotas.quota import Quota
from coflows.store.base import Store

INSTANCES = (
    "Delete some that you do not need: `coflows instances --fetched` lists them, `coflows delete ID` deletes one."
)
STEP = 16 * 2**10
"""Bytes in whole steps of which the growth of a state is recorded: most turns change nothing that counts."""
FRESH, FRESH_ENOUGH = 5.0, 0.5
"""Seconds that a sum is relied on, and for which somebody is refused before it is made again."""
MAX_SUMS = 10_000
"""Users whose sums are remembered."""
RETRY = 60.0
"""Seconds after which one who has too much is to ask again: he is to give something back."""


class Amount(NamedTuple):
    """So many instances, and bytes, at one endpoint."""

    endpoint: str
    instances: int = 0
    size: int = 0


class _Sum:
    def __init__(self, at: float) -> None:
        self.at = at
        self.endpoints: dict[str, tuple[int, int]] = {}

    def add(self, amount: Amount, sign: int = 1) -> None:
        instances, size = self.endpoints.get(amount.endpoint, (0, 0))
        self.endpoints[amount.endpoint] = (instances + sign * amount.instances, size + sign * amount.size)


class Usage:
    """Of one process. Thread-safe; raises what the store raises."""

    def __init__(self, store: Store, quota: Quota) -> None:
        self._store = store
        self._quota = quota
        self._quotas = EndpointQuotas(store, quota)
        self._sums: OrderedDict[str, _Sum] = OrderedDict()
        self._pending: dict[str, list[Amount]] = {}
        self._lock = threading.Lock()

    @contextmanager
    def claimed(self, user_id: str, amounts: Sequence[Amount]) -> Iterator[None]:
        """``claim`` for what is committed within: whoever adds up meanwhile counts it, whether it is there yet."""
        self.claim(user_id, amounts, pending=True)
        try:
            yield
        except BaseException:
            self._release(user_id, amounts)
            raise
        finally:
            with self._lock:
                for amount in amounts:
                    self._pending[user_id].remove(amount)
                if not self._pending[user_id]:
                    del self._pending[user_id]

    def claim(self, user_id: str, claimed: Sequence[Amount], *, pending: bool = False) -> None:
        """Whoever commits this much more for the user may; else QuotaExceededError."""
        with self._lock:
            found = self._sum(user_id, FRESH)
            try:
                self._check(found, claimed)
            except QuotaExceededError as error:
                again = self._sum(user_id, FRESH_ENOUGH)
                if again is found:  # He may have given something back since.
                    error.retry_after = FRESH_ENOUGH
                    raise
                found = again
                self._check(found, claimed)
            for amount in claimed:
                found.add(amount)
            if pending:
                self._pending.setdefault(user_id, []).extend(claimed)

    def _release(self, user_id: str, amounts: Iterable[Amount]) -> None:
        with self._lock:
            found = self._sums.get(user_id)
            for amount in amounts if found is not None else ():
                assert found is not None
                found.add(amount, -1)

    def _check(self, found: _Sum, claimed: Iterable[Amount]) -> None:
        for endpoint in {amount.endpoint for amount in claimed}:
            own = self._quotas.of(endpoint)
            counted = [endpoint] if own is not None else [*found.endpoints, endpoint]
            together = {name for name in counted if own is not None or self._quotas.of(name) is None}
            has = [found.endpoints.get(name, (0, 0)) for name in together]
            more = [amount for amount in claimed if amount.endpoint in together]
            quota = own or self._quota
            instances = sum(one for one, _ in has) + sum(one.instances for one in more)
            size = sum(one for _, one in has) + sum(one.size for one in more)
            if quota.instances is not None and instances > quota.instances and any(one.instances for one in more):
                raise _exceeded(f"{quota.instances} instances", INSTANCES)
            if quota.stored_bytes is not None and size > quota.stored_bytes and any(one.size > 0 for one in more):
                raise _exceeded(f"{quota.stored_bytes:,} bytes of state", INSTANCES)

    def _sum(self, user_id: str, fresh: float) -> _Sum:
        found, now = self._sums.get(user_id), time.monotonic()
        if found is None or now - found.at > fresh:
            self._sums.pop(user_id, None)
            found = self._sums[user_id] = _Sum(now)
            if len(self._sums) > MAX_SUMS:  # Whoever is forgotten is added up again.
                self._sums.popitem(last=False)
            prefix = usage_prefix(user_id)
            for entry in all_entries(self._store, prefix):
                endpoint = entry.key[len(prefix) :].split(":")[0]
                found.add(Amount(endpoint, 1, sum(read(entry.value).values())))
            for amount in self._pending.get(user_id, ()):
                found.add(amount)
        return found


def mount_usage(base: int, state: int) -> bytes:
    """The record of an instance whose state has ``state`` bytes, and all else ``base``."""
    return encode({"base": base, "state": in_steps(state)})


def in_steps(size: int) -> int:
    """What a state of that size counts for."""
    return size // STEP * STEP


def state_usage(store: Store, user_id: str, endpoint: str, flow_id: str, state: int) -> dict[str, bytes]:
    """What is to be written with a state of another size."""
    key = usage_key(user_id, endpoint, flow_id)
    entry = store.get(key)
    return {key: mount_usage(0 if entry is None else read(entry.value)["base"], state)}


def _exceeded(what: str, hint: str) -> QuotaExceededError:
    return QuotaExceededError(
        f"You have {what} of this user already, as much as he keeps for one.", hint=hint, retry_after=RETRY
    )
