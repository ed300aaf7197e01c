"""Places at which a process may be told to die, so that tests can see what is left behind."""

from __future__ import annotations

import os
import signal
import threading


class Failpoints:
    """``spec`` is ``name:count``: at the count-th ``reach(name)`` the process kills itself with SIGKILL. With an empty
    ``spec`` nothing happens. Thread-safe.

    Names: ``before_commit``, ``mid_turn``, ``after_commit`` (before anything is published), ``mid_publish`` (before
    it is confirmed), ``after_publish`` (confirmed, before the acknowledgement). While a tree is fetched:
    ``fetch_sent``, ``before_mount``, ``after_mount``, ``after_answer``, ``mid_keep``. While a user gets a new key:
    ``before_rotate``, ``after_rotate`` (kept), ``mid_announce`` (after each peer), ``after_announce``.
    """

    def __init__(self, spec: str) -> None:
        name, _, count = spec.partition(":")
        self._name = name
        self._left = int(count or 0)
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        """The process is at this point now."""
        if name != self._name:
            return
        with self._lock:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
