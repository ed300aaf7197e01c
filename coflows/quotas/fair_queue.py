"""A queue that many share: each has his turn, however much one of them puts in."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable, Iterator
from typing import Generic, TypeVar

Owner = TypeVar("Owner", bound=Hashable)
Item = TypeVar("Item")


class FairQueue(Generic[Owner, Item]):
    """Round robin over the owners, first in first out for each. Not thread-safe."""

    __slots__ = ("_queues",)

    def __init__(self) -> None:
        self._queues: dict[Owner, deque[Item]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def __iter__(self) -> Iterator[Item]:
        """All items, by owner."""
        for queue in self._queues.values():
            yield from queue

    @property
    def owners(self) -> Collection[Owner]:
        """Who has something in it, the one who is next first."""
        return self._queues.keys()

    def waits(self, skip: Collection[Owner] = (), other_than: Owner | None = None) -> bool:
        """Whether somebody has something in it who is not to be skipped."""
        for owner in self._queues:  # noqa: SIM110  (any() takes three times as long)
            if owner not in skip and owner != other_than:
                return True
        return False

    def push(self, owner: Owner, item: Item) -> None:
        """At the end of the owner's items."""
        queue = self._queues.get(owner)
        if queue is None:
            queue = self._queues[owner] = deque()
        queue.append(item)

    def push_first(self, owner: Owner, item: Item) -> None:
        """Before all others."""
        queue = self._queues.pop(owner, None) or deque()
        queue.appendleft(item)
        self._queues = {owner: queue, **self._queues}

    def pop(self, skip: Collection[Owner] = ()) -> tuple[Owner, Item] | None:
        """The next item of who is next and not to be skipped; he is the last one from now on."""
        for owner, queue in self._queues.items():
            if owner not in skip:
                item = queue.popleft()
                if not queue:
                    del self._queues[owner]
                elif len(self._queues) > 1:
                    del self._queues[owner]
                    self._queues[owner] = queue
                return owner, item
        return None

    def discard(self, items: Collection[Item]) -> list[Item]:
        """Take these out, wherever they are; gives those that were there."""
        gone: list[Item] = []
        for owner, queue in list(self._queues.items()):
            found = [item for item in queue if item in items]
            if found:
                gone += found
                kept = deque(item for item in queue if item not in items)
                if kept:
                    self._queues[owner] = kept
                else:
                    del self._queues[owner]
        return gone
