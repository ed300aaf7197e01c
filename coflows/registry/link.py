"""A connection that a service keeps to a registry: what it knows goes there, and what that knows comes here."""

from __future__ import annotations

import json
import logging
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ValidationError

from coflows.errors import CoflowsError, RegistryError, RegistryRefusedError
from coflows.registry.backoff import delay
from coflows.registry.dialing import Dialer
from coflows.registry.entry import first_problem
from coflows.registry.messages import Announcement, Welcome
from coflows.registry.page import MAX_ENTRIES, MAX_ENTRIES_BYTES, Cursor, Entries, Offer, Page, Update, Updated, Wanted
from coflows.registry.peers import LinkState

logger = logging.getLogger(__name__)

CONNECTING, CONNECTED, FAILED, STOPPED, LEFT = "connecting", "connected", "failed", "stopped", "left"
NOT_CONNECTED = "not_connected"
FRESH_SECONDS = 600.0
"""How often all is compared from the start, whatever the cursors say."""
GATHER_SECONDS = 0.02
MAX_TURNS = 5
"""How often the other side may want to begin elsewhere before it has all."""

MAX_PAGES = 20_000
"""More than twice as many as nodes are taken in: a page has at least one."""

Model = TypeVar("Model", bound=BaseModel)


class Home(Protocol):
    """The service that has the link."""

    url: str
    log: str
    retry: int
    heartbeat: float
    takes_feed: bool

    def headers(self, to: str, method: str, path: str, body: bytes) -> dict[str, str]:
        """Those of a signed request."""

    def own_offer(self) -> Offer:
        """What the service says of itself now."""

    def farewell(self) -> Offer:
        """That it offers nothing any more."""

    def left(self) -> None:
        """A farewell was said."""

    def heed(self, later: Offer) -> None:
        """What it said of itself before, as others know it."""

    def give(self, after: Cursor) -> Page:
        """What it passes on."""

    def entries(self, digests: list[str]) -> dict[str, str]:
        """The texts of entries."""

    def take(self, link: LinkState, page: Page, entries: dict[str, str]) -> list[str]:
        """Take in what the other side passes on; gives the entries that are needed first."""

    def keep_link(self, link: LinkState) -> None:
        """Remember up to where the other side's log was taken."""


class Link:
    """A thread that connects, stays in step, and comes back after failures. ``wake`` tells that there is something new;
    a link that gave up begins anew by it."""

    def __init__(self, home: Home, dialer: Dialer, known: LinkState) -> None:
        self.url = known.url
        self.known = known
        self.state = CONNECTING
        self.error = ""
        self.attempts = 0
        self._home = home
        self._dialer = dialer
        self._changed = threading.Condition()
        self._wanted = 1
        self._done = 0
        self._closed = False
        self._leaving = False
        self._welcome: Welcome | None = None
        self._was_connected = False
        self._fresh_at = 0.0
        self._thread = threading.Thread(target=self._run, name=f"coflows-link-{self.url}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def wake(self, begin_anew: bool = False) -> None:
        """There is something to pass on, or the other side is back."""
        with self._changed:
            self._wanted += 1
            if begin_anew:
                self.attempts = 0
            if begin_anew or self.state != STOPPED:
                self._changed.notify_all()

    @property
    def idle(self) -> bool:
        """Whether all that there was to pass on is, or the link gave up."""
        with self._changed:
            return self.state in (STOPPED, LEFT) or (self.state == CONNECTED and self._done == self._wanted)

    def leave(self, timeout: float) -> bool:
        """Tell the other side that this service offers nothing there any more, and end; False when it could not be told
        in time: then it is tried on."""
        with self._changed:
            self._leaving = True
            self._wanted += 1
            self._changed.notify_all()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def close(self) -> None:
        """End without a word; the thread ends once its request does."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for its end."""
        self._thread.join(timeout)

    # -- the thread --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed:
            with self._changed:
                wanted, leaving = self._wanted, self._leaving
            try:
                if leaving:
                    if self._was_connected:
                        self._leave()
                    self._settle(LEFT, wanted)
                    return
                self._step()
            except CoflowsError as error:
                if isinstance(error, RegistryRefusedError) and error.reason == NOT_CONNECTED and self._welcome:
                    self._welcome = None
                    continue
                self._fail(error)
            except Exception as error:  # A link that dies in silence would be worse.
                if self._closed:
                    return
                logger.exception("%s: the connection to %s failed.", self._home.url, self.url)
                self._fail(error)
            else:
                self._settle(CONNECTED, wanted)
                self._rest(self._home.heartbeat, wanted)

    def _settle(self, state: str, done: int) -> None:
        with self._changed:
            if self.state != state and state == CONNECTED:
                logger.info("%s: connected to %s.", self._home.url, self.url)
            self.state, self.error, self.attempts, self._done = state, "", 0, done

    def _fail(self, error: Exception) -> None:
        self._welcome = None
        with self._changed:
            self.attempts += 1
            self.error = str(error)
            given_up = 0 <= self._home.retry < self.attempts
            self.state = STOPPED if given_up else FAILED
            log = logger.warning if given_up or self.attempts == 1 else logger.debug
            log("%s: %s%s", self._home.url, error, " Gave up." if given_up else "")
            attempts, leaving = self.attempts, self._leaving
        if given_up and leaving:
            self.close()
            return

        # What is new does not make a service answer that does not.
        def go_on() -> bool:
            return self._closed or self._leaving != leaving or self.attempts < attempts

        self._wait(None if given_up else delay(attempts, random.random()), go_on)

    def _rest(self, seconds: float, wanted: int) -> None:
        """Until there is something to do, or it is time for a beat."""
        if self._wait(seconds, lambda: self._closed or self._leaving or self._wanted != wanted):
            with self._changed:
                self._changed.wait_for(lambda: self._closed, GATHER_SECONDS)  # What changes together goes together.

    def _wait(self, seconds: float | None, until: Callable[[], bool]) -> bool:
        with self._changed:
            return self._changed.wait_for(until, seconds)

    # -- what is said ------------------------------------------------------------------------------------------

    def _step(self) -> None:
        fresh = time.monotonic() >= self._fresh_at
        if self._welcome is None or fresh:
            welcome = self._connect(fresh)
            if fresh:
                self._fresh_at = time.monotonic() + FRESH_SECONDS
        else:
            welcome = self._welcome
        self._welcome = self._push(welcome)
        if welcome.registry and self._home.takes_feed:
            self._pull()

    def _connect(self, fresh: bool) -> Welcome:
        body = Announcement(offer=self._home.own_offer(), fresh=fresh)
        welcome = _read(Welcome, self._ask("POST", "/connect", body))
        if welcome.later is not None:
            self._home.heed(welcome.later)
        self._was_connected = True
        if fresh or welcome.user_id != self.known.user_id:
            self.known = LinkState(self.url, welcome.user_id)
            self._home.keep_link(self.known)
        return welcome

    def _push(self, welcome: Welcome) -> Welcome:
        """Pass on what the other side does not know."""
        entries: dict[str, str] = {}
        sent: set[str] = set()
        turns = 0
        cursor = welcome.cursor if welcome.log == self._home.log else Cursor()
        while not self._closed:
            page = self._home.give(cursor)
            told = _read(Updated, self._ask("POST", "/update", Update(page=page, entries=entries)))
            entries = _within(self._home.entries([one for one in told.missing if one not in sent]))
            cursor = told.cursor
            if told.missing:
                if not entries:
                    raise RegistryError(f"{self.url} wants entries that are not here, or that it has been sent.")
                sent.update(entries)
                continue
            sent.clear()
            turns += cursor != page.upto
            if turns > MAX_TURNS:
                raise RegistryError(f"{self.url} wants the same changes again and again.")
            if not page.more and cursor == page.upto:
                break
        return welcome.model_copy(update={"cursor": cursor, "log": self._home.log})

    def _pull(self) -> None:
        """Take in what the other side knows."""
        for _ in range(MAX_PAGES):
            if self._closed:
                return
            cursor = self.known.cursor
            path = f"/changes?records={cursor.records}&beats={cursor.beats}"
            page = _read(Page, self._ask("GET", path))
            if page.log != self.known.log:
                self.known = LinkState(self.url, self.known.user_id, page.log)
                if cursor != Cursor():
                    continue
            missing = self._home.take(self.known, page, {})
            while missing:
                answer = _read(Entries, self._ask("POST", "/entries", Wanted(digests=missing[:MAX_ENTRIES])))
                before, missing = missing, self._home.take(self.known, page, answer.entries)
                if missing == before:
                    raise RegistryError(f"{self.url} does not have the entries of its own records.")
            self.known = self.known._replace(cursor=page.upto)
            if not page.more:
                return
            if not page.offers or page.upto == cursor:
                break
        raise RegistryError(f"{self.url} passes on changes without end.")

    def _leave(self) -> None:
        welcome = self._connect(False)
        page = Page(log=welcome.log, after=welcome.cursor, upto=welcome.cursor, offers=[self._home.farewell()])
        self._ask("POST", "/update", Update(page=page))
        try:
            self._ask("DELETE", "/connect")
        except RegistryRefusedError as error:
            if error.reason != NOT_CONNECTED:  # Else it was told before, by a request that was not answered.
                raise
        self._home.left()

    def _ask(self, method: str, path: str, body: BaseModel | None = None) -> Any:
        content = b"" if body is None else body.model_dump_json().encode()
        sign = None if method == "GET" else lambda: self._home.headers(self.url, method, path, content)
        return self._dialer.request(method, self.url, path, content or None, sign)


def _within(entries: dict[str, str]) -> dict[str, str]:
    """As many of them as go into one request, and at least one."""
    taken: dict[str, str] = {}
    size = 0
    for digest, text in entries.items():
        size += len(json.dumps(text))
        if taken and size > MAX_ENTRIES_BYTES:
            break
        taken[digest] = text
    return taken


def _read(model: type[Model], answer: Any) -> Model:
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        raise RegistryError(f"The other side does not answer as a registry does: {first_problem(error)}.") from error
