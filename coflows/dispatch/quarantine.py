"""One at a time: messages whose workers have died more than once while they were worked off."""

from __future__ import annotations

import threading
from collections.abc import Hashable

PATIENCE = 60.0
"""Seconds that a message waits for the one before it: that may wait for this one in turn, or take hours."""


class Quarantine:
    """Of the messages that ran when a worker died, one may have killed it. Tried side by side each of them would be
    there at the next death too, and all would be given up with the one. Thread-safe."""

    def __init__(self) -> None:
        self._inside: set[Hashable] = set()
        self._changed = threading.Condition()

    def enter(self, message: Hashable, patience: float = PATIENCE) -> None:
        """Wait until no other message is inside, for ``patience`` seconds at the most. Again is as once."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside <= {message}, patience)
            self._inside.add(message)

    def leave(self, message: Hashable) -> None:
        """The message is over, here at least; nothing happens when it is not inside."""
        with self._changed:
            if message in self._inside:
                self._inside.remove(message)
                self._changed.notify_all()
