"""Keeps what was found out until something changes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """The last ``most`` values asked for, of one version. Thread-safe."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._version = -1
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, version: int) -> Value | None:
        """What is kept of this version."""
        with self._lock:
            if self._version != version:
                self._values.clear()
                self._version = version
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: Key, value: Value, version: int, now: int) -> None:
        """Keep a value that was found in ``version``, unless it is another one ``now``."""
        with self._lock:
            if self._version == version == now:
                self._values[key] = value
                if len(self._values) > self._most:
                    self._values.popitem(last=False)
