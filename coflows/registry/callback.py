"""What a service asks at URLs that others named: only where it may dial."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from coflows.errors import CoflowsError
from coflows.registry.dialing import Dialer

ANSWER_SECONDS = 60.0
MAX_ANSWERS = 1000
AT_ONCE = 8


class Callback:
    """Thread-safe. ``headers`` signs a POST to a URL's path."""

    def __init__(self, dialer: Dialer, headers: Callable[[str, str, str, bytes], dict[str, str]]) -> None:
        self._dialer = dialer
        self._headers = headers
        self._answers: dict[str, tuple[float, str | None]] = {}
        self._lock = threading.Lock()

    def reconnect(self, urls: list[str]) -> None:
        """Ask services to connect again; those that do not answer come by themselves."""

        def ask(url: str) -> None:
            with suppress(CoflowsError):
                self._dialer.request("POST", url, "/reconnect", b"", self._headers(url, "POST", "/reconnect", b""))

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="coflows-reconnect") as pool:
            list(pool.map(ask, urls))

    def user_at(self, url: str) -> str | None:
        """Whose service answers at a URL, None when none does; asked once a minute at most."""
        now = time.monotonic()
        with self._lock:
            asked, user_id = self._answers.get(url, (now - ANSWER_SECONDS, None))
            if now - asked < ANSWER_SECONDS:
                return user_id
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[url] = now, None
        user_id = None
        with suppress(CoflowsError):
            answer = self._dialer.request("GET", url, "/")
            found = answer.get("user_id") if isinstance(answer, dict) else None
            user_id = found if isinstance(found, str) else None
        with self._lock:
            self._answers[url] = now, user_id
        return user_id

    def close(self) -> None:
        """Close all connections."""
        self._dialer.close()
