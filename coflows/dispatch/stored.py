"""Counts what the states of instances take, as usage of whom they are mounted for."""

from __future__ import annotations

from coflows.dispatch.loader import Loaded
from coflows.store.base import Store
from coflows.usage import Amount, Usage, in_steps, state_usage


class StoredBytes:
    """Thread-safe; raises what the store raises, and reads it only when a state has grown or shrunk by a step."""

    def __init__(self, store: Store, usage: Usage) -> None:
        self._store = store
        self._usage = usage

    def claim(self, loaded: Loaded, size: int) -> None:
        """The flow's state has so many bytes now. Raises QuotaExceededError when that is too much."""
        user_id, more = loaded.instance.for_user, in_steps(size) - loaded.counted
        if user_id is not None and more:
            self._usage.claim(user_id, [Amount(loaded.instance.path.endpoint, 0, more)])

    def count(self, loaded: Loaded, writes: dict[str, bytes]) -> None:
        """Add what is to be written with the flow's new state."""
        user_id, path = loaded.instance.for_user, loaded.instance.path
        size = len(loaded.state or b"")
        if user_id is not None and in_steps(size) != loaded.counted:
            loaded.counted = in_steps(size)
            writes |= state_usage(self._store, user_id, path.endpoint, path.flow_id, size)
