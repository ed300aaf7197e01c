"""A node, registry or provider: what it offers, what it knows of others, and its connections to them."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coflows.errors import AccessDeniedError, CoflowsError, ConfigurationError, RegistryRefusedError
from coflows.identity.keys import Identity
from coflows.registry.change_log import ChangeLog
from coflows.registry.database import Database, next_number
from coflows.registry.dialing import Dialer
from coflows.registry.entry import digest_of
from coflows.registry.exchange import Exchange, Source, everything, nothing, only
from coflows.registry.judging import Times, state_of
from coflows.registry.link import LEFT, NOT_CONNECTED, Link
from coflows.registry.listing import Listing
from coflows.registry.messages import Announcement, Welcome
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.options import Options
from coflows.registry.page import Cursor, Offer, Page, SignedText, Update, Updated
from coflows.registry.peers import LinkState, Peers
from coflows.registry.record import MAX_CONNECT, NODE, Beat, Record, role_of
from coflows.registry.requests import Asker, sign_request
from coflows.registry.sources import FlowSource
from coflows.registry.urls import check_url

logger = logging.getLogger(__name__)

LEAVE_SECONDS = 10.0
CLOSE_SECONDS = 3.0
"""For requests under way; what they would have told is told after a restart."""
ANSWER_SECONDS = 60.0
KEEP_PEERS = 14 * 86400.0


class Service:
    """Thread-safe. ``start`` begins with its connections, ``close`` ends them; ``url`` must be the one that it can be
    reached at by then."""

    def __init__(self, options: Options, identity: Identity, source: FlowSource, cache: Path) -> None:
        self.options = options
        self.identity = identity
        self.url = options.url
        self.retry, self.heartbeat = options.retry, options.heartbeat
        self.takes_feed = options.registry and options.feed
        self._source = source
        self._db = Database(cache, options.cache_reset)
        self._nodes = Nodes(self._db, Times(options.offline_after, options.ttl))
        self._change_log = ChangeLog(self._db)
        self.log = self._change_log.id
        self.listing = Listing(self._db)
        self._peers = Peers(self._db)
        self._callback = Dialer(options.timeout, options.callback_reach)
        self._dialer = Dialer(options.timeout)
        self._exchange = Exchange(self._db, self._nodes, options, (identity.user_id, self.url), self._answers)
        self._links: dict[str, Link] = {}
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._answered: dict[str, tuple[float, str | None]] = {}
        self._keeper = threading.Thread(target=self._keep, name="coflows-registry", daemon=True)
        self._stop_watching: Callable[[], None] = lambda: None

    # -- life --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Offer the flows, connect, and let the peers of before know that this service is back."""
        now = time.time()
        with self._db.write() as db:
            away = now - float(str(self._db.fact("alive", now)))
            self._nodes.pause(db, max(away, 0.0))
            self._nodes.disown(db, self.identity.user_id, self.url)
        kept = {link.url: link for link in self._peers.links()}
        urls = [*self.options.connect, *(url for url, link in kept.items() if link.wanted)]
        for url in dict.fromkeys(urls):
            self._links[url] = Link(self, self._dialer, kept.get(url, LinkState(url))._replace(wanted=True))
        self._stop_watching = self._source.watch(self._offer_again)
        self.offer()
        logger.info(
            "%s: startup with flows: %d, providers: %d, connections: %d.",
            *(self.url, self.listing.total(), len(self._peers.connected()), len(self._links)),
        )
        for link in list(self._links.values()):
            link.start()
        self._keeper.start()
        if self._peers.connected():
            threading.Thread(target=self._call_back, name="coflows-reconnect", daemon=True).start()

    def close(self) -> None:
        """End; what is known stays in the cache. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._stop_watching()
        with self._lock:
            links = list(self._links.values())
        for link in links:
            link.close()
        self._dialer.close()
        self._callback.close()
        deadline = time.monotonic() + CLOSE_SECONDS
        for link in links:
            link.join(max(deadline - time.monotonic(), 0.0))
        self._keeper.join()
        self._db.close()

    # -- what is offered ---------------------------------------------------------------------------------------

    def offer(self) -> None:
        """Make this node's record say what it offers now; signed anew only when that is something else."""
        with self._lock:
            entries = self._source.entries()
            if len(entries) > self.options.max_flows_per_node:
                raise ConfigurationError(
                    f"{len(entries)} flows are more than a node may offer, {self.options.max_flows_per_node}."
                )
            texts = {digest_of(text): text for text in (entry.text() for entry in entries)}
            now = time.time()
            with self._db.write() as db:
                said = self._record(sorted(texts), 0)
                before = self._nodes.own_record(db)
                changed = not said.same_as(before)
                if changed:
                    said = said.model_copy(update={"sequence": next_number(db, "sequence")})
                    self._nodes.keep_entries(db, texts, now)
                    self._nodes.take_record(db, self._claim(db, said, now))
                else:
                    self._nodes.take_beat(db, self._claim(db, None, now))
        if changed:
            self._told(True)

    def _offer_again(self) -> None:
        try:
            if not self._closed.is_set():
                self.offer()
        except CoflowsError as error:
            logger.warning("%s: what is served now could not be offered: %s", self.url, error)

    def _record(self, digests: list[str], sequence: int, withdrawn: bool = False) -> Record:
        options = self.options
        return Record(
            user_id=self.identity.user_id,
            url=self.url,
            sequence=sequence,
            organization=options.organization or "",
            registry=options.registry,
            feed=options.feed,
            broker=options.broker,
            connect=[] if withdrawn else sorted(self._links)[:MAX_CONNECT],
            flows=digests,
            withdrawn=withdrawn,
        )

    def _claim(self, db: sqlite3.Connection, record: Record | None, now: float) -> Claim:
        beat = Beat(user_id=self.identity.user_id, url=self.url, beat=next_number(db, "beat"))
        signed = None if record is None else record.sign(self.identity)
        return Claim(record, signed, beat, beat.sign(self.identity), now, "")

    def own_offer(self) -> Offer:
        """What this service says of itself."""
        return self._change_log.own_offer()

    def farewell(self) -> Offer:
        """That this service offers nothing any more; its own listing stays."""
        with self._db.write() as db:
            record = self._record([], next_number(db, "sequence"), withdrawn=True)
            claim = self._claim(db, record, time.time())
            # The record that comes after the farewell has to be a later one.
            self._nodes.outdate(db)
        return Offer(record=SignedText.of(record.sign(self.identity)), beat=SignedText.of(claim.signed_beat))

    def left(self) -> None:
        """A registry was left. Others that this service stays with are told that it is there all the same."""
        self._offer_again()

    def heed(self, sequence: int, beat: int) -> None:
        """Others know a record or beat of this service with these numbers, perhaps from before the cache was lost."""
        own = self._nodes.known(self.identity.user_id, self.url)
        if own is None or sequence > own.sequence or beat > own.beat:
            with self._db.write() as db:
                next_number(db, "sequence", sequence + 1)
                next_number(db, "beat", beat + 1)
                self._nodes.outdate(db)
            self.offer()

    # -- what peers ask ----------------------------------------------------------------------------------------

    def welcome(self, asker: Asker, said: Announcement) -> Welcome:
        """A service connects. Raises AccessDeniedError, SerializationError or RegistryRefusedError."""
        if not self.options.registry:
            raise AccessDeniedError(f"{self.url} is a node, to which none connect.", hint="Connect to a registry.")
        if said.offer.record is None:
            raise AccessDeniedError("Who connects says who it is.")
        record = Record.read(said.offer.record.signed).check(said.offer.record.signed)
        if (record.user_id, record.url) != (asker.user_id, asker.url) or record.url == self.url:
            raise AccessDeniedError(f"The record of {record.url} is not that of {asker.url}, which connects.")
        known = self._nodes.known(asker.user_id, asker.url)
        try:
            self._exchange.check_place(record.user_id, record.url)
        except AccessDeniedError as error:
            raise RegistryRefusedError(error.message, status=409, reason="place_taken", hint=error.hint) from error
        with self._db.write() as db:
            self._peers.use_number(db, asker, time.time(), self.options.max_nodes)
            self._peers.connect(
                db, asker.user_id, asker.url, record.organization, role_of(record.registry, record.feed), said.fresh
            )
        peer = self._peers.find(asker.user_id, asker.url)
        assert peer is not None
        logger.info("%s: connect from %s (%s) with flows: %d.", self.url, asker.url, peer.role, len(record.flows))
        return Welcome(
            user_id=self.identity.user_id,
            url=self.url,
            organization=self.options.organization or "",
            registry=self.options.registry,
            feed=self.options.feed,
            log=peer.log,
            cursor=peer.cursor,
            sequence=known.sequence if known else 0,
            beat=known.beat if known else 0,
        )

    def update(self, asker: Asker, update: Update) -> Updated:
        """A peer passes a page on."""
        peer = self._connected(asker)
        page = update.page
        if page.log != peer.log and page.after != Cursor():
            return Updated(log=page.log, cursor=Cursor())
        if page.log == peer.log and page.after != peer.cursor:
            return Updated(log=page.log, cursor=peer.cursor)
        takes = only(asker.user_id, asker.url) if peer.role == NODE else everything if self.options.feed else nothing

        def move(db: sqlite3.Connection, log: str, cursor: Cursor) -> None:
            self._peers.move(db, asker.user_id, asker.url, log, cursor)

        outcome = self._exchange.take(Source(asker.url, takes, move), page, update.entries)
        self._told(outcome.changed)
        return Updated(log=page.log, cursor=page.after if outcome.missing else page.upto, missing=outcome.missing)

    def disconnect(self, asker: Asker) -> None:
        """A peer leaves: what only it passed on is listed no more."""
        self._connected(asker)
        with self._db.write() as db:
            self._peers.disconnect(db, asker.user_id, asker.url)
            self._nodes.drop(db, asker.url, time.time())
        logger.info("%s: disconnect from %s.", self.url, asker.url)
        self._told(True)

    def reconnect(self, asker: Asker | None) -> None:
        """A registry is back, or (None) the owner says that all may be: connect now."""
        with self._lock:
            links = [link for link in self._links.values() if asker is None or link.url == asker.url]
        if asker is not None:
            if not links or links[0].known.user_id not in ("", asker.user_id):
                raise AccessDeniedError(f"{self.url} is not connected to {asker.url} of user {asker.user_id}.")
            with self._db.write() as db:
                self._peers.use_number(db, asker, time.time(), self.options.max_nodes)
        for link in links:
            link.wake(begin_anew=True)

    def _connected(self, asker: Asker) -> Any:
        """The peer that asks, once its request's number is taken. Raises RegistryRefusedError when it is none."""
        peer = self._peers.find(asker.user_id, asker.url)
        if peer is None or not peer.connected:
            raise RegistryRefusedError(
                f"{asker.url} is not connected.", status=409, reason=NOT_CONNECTED, hint="POST /connect first."
            )
        with self._db.write() as db:
            self._peers.use_number(db, asker, time.time(), self.options.max_nodes)
        return peer

    def own_request(self, asker: Asker) -> None:
        """Take the number of a request of the owner's own."""
        with self._db.write() as db:
            self._peers.use_number(db, asker, time.time(), self.options.max_nodes)

    # -- what the owner asks -----------------------------------------------------------------------------------

    def add_link(self, url: str) -> None:
        """Connect to a registry, now and after a restart."""
        place = check_url(url).url
        with self._lock:
            if place == self.url:
                raise AccessDeniedError("A service does not connect to itself.")
            if place not in self._links:
                if len(self._links) >= MAX_CONNECT:
                    raise AccessDeniedError(f"There are {MAX_CONNECT} connections already.")
                state = LinkState(place)
                self.keep_link(state)
                self._links[place] = Link(self, self._dialer, state)
                self._links[place].start()
        self.reconnect(None)
        self.offer()

    def remove_links(self, url: str | None = None) -> None:
        """Leave a registry, or all; what this service offers is taken back there. Waits some seconds for that."""
        with self._lock:
            links = [link for link in self._links.values() if url in (None, link.url)]
        for link in links:
            self.keep_link(link.known._replace(wanted=False))
        if not links:
            return
        with ThreadPoolExecutor(len(links)) as pool:
            list(pool.map(lambda link: link.leave(LEAVE_SECONDS), links))
        with self._lock:
            for link in links:
                self._links.pop(link.url, None)
        self.offer()

    # -- what links ask of their home --------------------------------------------------------------------------

    def headers(self, to: str, method: str, path: str, body: bytes) -> dict[str, str]:
        """Those of a signed request."""
        with self._db.write() as db:
            number = next_number(db, "number")
        return sign_request(self.identity, to, method, path, body, number, self.url)

    def give(self, after: Cursor) -> Page:
        """What changed here after the cursor: all that is known, of a node only what it says of itself."""
        return self._change_log.page(after, not self.options.registry, time.time())

    def entries(self, digests: list[str]) -> dict[str, str]:
        """The texts of those entries that are here."""
        return self._nodes.entries(digests)

    def take(self, link: LinkState, page: Page, entries: dict[str, str]) -> list[str]:
        """Take in what a registry knows that this one is connected to."""

        def move(db: sqlite3.Connection, log: str, cursor: Cursor) -> None:
            self._peers.keep_link(db, link._replace(log=log, cursor=cursor))

        outcome = self._exchange.take(Source(link.url, everything, move), page, entries)
        self._told(outcome.changed)
        return outcome.missing

    def keep_link(self, link: LinkState) -> None:
        """Remember a link."""
        with self._db.write() as db:
            self._peers.keep_link(db, link)

    # -- what it tells of itself -------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether every connection is in step, or was given up."""
        with self._lock:
            return all(link.idle for link in self._links.values())

    def info(self) -> dict[str, Any]:
        """Who this is."""
        return {
            "url": self.url,
            "organization": self.options.organization or "",
            "registry": self.options.registry,
            "feed": self.options.feed,
            "role": self.options.role,
            "user_id": self.identity.user_id,
            "idle": self.idle,
            "now": datetime.now(UTC).isoformat(timespec="seconds"),
            "total": self.listing.total(),
        }

    def map(self) -> dict[str, Any]:
        """The nodes and who is connected to whom."""
        nodes, connections = [], []
        for record, state in self._nodes.records():
            nodes.append(
                {
                    "url": record.url,
                    "organization": record.organization,
                    "user_id": record.user_id,
                    "registry": record.registry,
                    "feed": record.feed,
                    "role": role_of(record.registry, record.feed),
                    "status": state,
                    "flows": len(record.flows),
                    "connect": record.connect,
                }
            )
            connections += [{"source": record.url, "target": url} for url in record.connect]
        return {"url": self.url, "nodes": nodes, "connections": connections}

    def connections(self) -> dict[str, Any]:
        """Whom this service dials, and who dials it."""
        with self._lock:
            links = sorted(self._links.values(), key=lambda link: link.url)
        now = time.time()
        return {
            "connections": [
                {"url": link.url, "state": link.state, "error": link.error, "attempts": link.attempts}
                for link in links
                if link.state != LEFT
            ],
            "peers": [
                {
                    "url": peer.url,
                    "user_id": peer.user_id,
                    "organization": peer.organization,
                    "role": peer.role,
                    "status": state_of(peer.seen, now, self._nodes.times),
                }
                for peer in self._peers.connected()
            ],
        }

    # -- what it does by itself --------------------------------------------------------------------------------

    def _told(self, changed: bool) -> None:
        """Flows are listed otherwise: cached counts are void, and who this service passes it on to is told."""
        if changed:
            self._db.version += 1
            with self._lock:
                links = list(self._links.values())
            for link in links:
                link.wake()

    def _keep(self) -> None:
        """Beat, mark who is silent, and forget what is old."""
        while not self._closed.wait(self.heartbeat):
            now = time.time()
            try:
                with self._db.write() as db:
                    self._nodes.take_beat(db, self._claim(db, None, now))
                    silent = self._nodes.sweep(db, now)
                    self._nodes.forget_entries(db, now)
                    self._peers.forget(db, now - max(KEEP_PEERS, 2 * self.options.ttl))
                    db.execute("INSERT OR REPLACE INTO facts VALUES ('alive', ?)", (now,))
                if silent:
                    self._db.version += 1
            except CoflowsError as error:
                logger.warning("%s: %s", self.url, error)

    def _call_back(self) -> None:
        """Ask the peers of before to connect again."""

        def ask(url: str) -> None:
            with suppress(CoflowsError):
                self._callback.request("POST", url, "/reconnect", b"", self.headers(url, "POST", "/reconnect", b""))

        with ThreadPoolExecutor(8, thread_name_prefix="coflows-reconnect") as pool:
            list(pool.map(ask, [peer.url for peer in self._peers.connected()]))

    def _answers(self, url: str) -> str | None:
        """Whose node answers at a URL; asked once a minute at most."""
        now = time.monotonic()
        with self._lock:
            asked, user_id = self._answered.get(url, (-ANSWER_SECONDS, None))
            if now - asked < ANSWER_SECONDS:
                return user_id
            if len(self._answered) > 1000:
                self._answered.clear()
            self._answered[url] = now, None
        user_id = None
        with suppress(CoflowsError):
            answer = self._callback.request("GET", url, "/")
            found = answer.get("user_id") if isinstance(answer, dict) else None
            user_id = found if isinstance(found, str) else None
        with self._lock:
            self._answered[url] = now, user_id
        return user_id
