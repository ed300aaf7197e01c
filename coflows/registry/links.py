"""The connections that a service keeps to registries: those it was set up with, and those its owner added."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from coflows.errors import AccessDeniedError
from coflows.registry.link import LEFT, Link
from coflows.registry.peers import LinkState
from coflows.registry.record import MAX_CONNECT
from coflows.registry.requests import Asker

LEAVE_SECONDS = 10.0
CLOSE_SECONDS = 3.0
"""For requests under way; what they would have told is told after a restart."""


class Links:
    """Thread-safe. ``make`` makes a link, ``keep`` remembers one."""

    def __init__(self, own_url: str, make: Callable[[LinkState], Link], keep: Callable[[LinkState], None]) -> None:
        self._own_url = own_url
        self._make = make
        self._keep = keep
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()

    def prepare(self, urls: list[str], kept: list[LinkState]) -> None:
        """Those of these URLs, and those that are kept and wanted; not started yet."""
        known = {link.url: link for link in kept}
        wanted = [*urls, *(link.url for link in kept if link.wanted)]
        for url in dict.fromkeys(wanted):
            if url != self._own_url:
                self._links[url] = self._make(known.get(url, LinkState(url))._replace(wanted=True))

    def start(self) -> None:
        """Let all begin."""
        for link in self._all():
            link.start()

    def add(self, url: str) -> None:
        """Connect to one more, now and after a restart; one that is there begins anew."""
        with self._lock:
            if url == self._own_url:
                raise AccessDeniedError("A service does not connect to itself.")
            link = self._links.get(url)
            if link is None:
                if len(self._links) >= MAX_CONNECT:
                    raise AccessDeniedError(f"There are {MAX_CONNECT} connections already.")
                self._keep(LinkState(url))
                link = self._links[url] = self._make(LinkState(url))
                link.start()
                return
        link.wake(begin_anew=True)

    def leave(self, url: str | None) -> list[str]:
        """Leave a registry, or all; gives which. Waits some seconds; who does not hear it then is told later."""
        links = [link for link in self._all() if url in (None, link.url)]
        for link in links:
            self._keep(link.known._replace(wanted=False))
        if links:
            with ThreadPoolExecutor(len(links)) as pool:
                list(pool.map(lambda link: link.leave(LEAVE_SECONDS), links))
        with self._lock:
            for link in links:
                self._links.pop(link.url, None)
        return [link.url for link in links]

    def wake(self) -> None:
        """There is something to pass on."""
        for link in self._all():
            link.wake()

    def begin_anew(self, asker: Asker | None) -> None:
        """Connect again now: to the registry that asks for it, or (None) all."""
        if asker is None:
            for link in self._all():
                link.wake(begin_anew=True)
            return
        self.check_known(asker)
        self._links[asker.url].wake(begin_anew=True)

    def check_known(self, asker: Asker) -> None:
        """Raise AccessDeniedError unless a link leads to the service that asks, and found its user there last."""
        with self._lock:
            link = self._links.get(asker.url)
        if link is None or link.known.user_id not in ("", asker.user_id):
            raise AccessDeniedError(f"There is no connection to {asker.url} of user {asker.user_id}.")

    @property
    def idle(self) -> bool:
        """Whether all are in step, or gave up."""
        return all(link.idle for link in self._all())

    @property
    def urls(self) -> list[str]:
        """Where they lead."""
        return [link.url for link in self._all()]

    def states(self) -> list[dict[str, Any]]:
        """How each one stands, by URL."""
        return [
            {"url": link.url, "state": link.state, "error": link.error, "attempts": link.attempts}
            for link in sorted(self._all(), key=lambda link: link.url)
            if link.state != LEFT
        ]

    def close(self) -> None:
        """Have all end."""
        for link in self._all():
            link.close()

    def join(self) -> None:
        """Wait for their ends, not for long."""
        deadline = time.monotonic() + CLOSE_SECONDS
        for link in self._all():
            link.join(max(deadline - time.monotonic(), 0.0))

    def _all(self) -> list[Link]:
        with self._lock:
            return list(self._links.values())
