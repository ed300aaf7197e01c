"""Waiting for what the store holds."""

from __future__ import annotations

import threading
from collections.abc import Callable

from coflows.store.base import Store

TIMEOUT = 60


def until(store: Store, prefix: str, holds: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Wait until ``holds()``, which is asked whenever something under ``prefix`` has changed."""
    changed = threading.Event()
    watch = store.watch(prefix, lambda _keys: changed.set())
    try:
        while not holds():
            assert changed.wait(timeout), f"still there: {what}"
            changed.clear()
    finally:
        watch.close()
