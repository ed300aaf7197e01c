"""What a service asks at URLs that others named: only where it may dial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from coflows.errors import CoflowsError
from coflows.registry.dialing import Dialer

ANSWER_SECONDS = 60.0
MAX_ANSWERS = 1000
AT_ONCE = 8
ASKED_AT_ONCE = 4
SECONDS = 5.0
MAX_BYTES = 64 * 1024


class Callback:
    """Thread-safe. ``headers`` signs a POST to a URL's path."""

    def __init__(
        self, timeout: float, reach: Collection[str], headers: Callable[[str, str, str, bytes], dict[str, str]]
    ) -> None:
        self._dialer = Dialer(min(timeout, SECONDS), reach, most=MAX_BYTES)
        self._headers = headers
        self._asking = threading.Semaphore(ASKED_AT_ONCE)
        self._answers: dict[str, tuple[float, str | None]] = {}
        self._lock = threading.Lock()

    def reconnect(self, urls: list[str]) -> None:
        """Ask services to connect again; those that do not answer come by themselves."""

        def ask(url: str) -> None:
            with suppress(CoflowsError):
                self._dialer.request(
                    "POST", url, "/reconnect", b"", lambda: self._headers(url, "POST", "/reconnect", b"")
                )

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="coflows-reconnect") as pool:
            list(pool.map(ask, urls))

    def user_at(self, url: str) -> str | None:
        """Whose service answers at a URL, None when none does; asked once a minute at most, and None when too many are
        being asked: who keeps them waiting holds up nothing else."""
        now = time.monotonic()
        with self._lock:
            asked, user_id = self._answers.get(url, (now - ANSWER_SECONDS, None))
            if now - asked < ANSWER_SECONDS:
                return user_id
        user_id = None
        if not self._asking.acquire(blocking=False):
            return None
        try:
            answer = self._dialer.request("GET", url, "/")
            found = answer.get("user_id") if isinstance(answer, dict) else None
            user_id = found if isinstance(found, str) else None
        except CoflowsError:
            pass
        finally:
            self._asking.release()
        with self._lock:
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[url] = now, user_id
        return user_id

    def close(self) -> None:
        """Close all connections."""
        self._dialer.close()
