"""A node, registry or provider, put together: what it offers, what it knows of others, its connections to them."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coflows.errors import CoflowsError
from coflows.identity.keys import Identity
from coflows.registry.callback import Callback
from coflows.registry.change_log import ChangeLog
from coflows.registry.database import Database
from coflows.registry.dialing import Dialer
from coflows.registry.exchange import Exchange, Source, everything
from coflows.registry.judging import Times, state_of
from coflows.registry.link import Link
from coflows.registry.links import Links
from coflows.registry.listing import Listing
from coflows.registry.messages import Announcement, Welcome
from coflows.registry.nodes import NodeListed, Nodes
from coflows.registry.numbers import Numbers
from coflows.registry.options import Options
from coflows.registry.own_node import OwnNode
from coflows.registry.page import Cursor, Offer, Page, Update, Updated
from coflows.registry.peers import LinkState, Peers
from coflows.registry.reception import Reception
from coflows.registry.record import role_of
from coflows.registry.requests import Asker, sign_request
from coflows.registry.sources import FlowSource
from coflows.registry.urls import check_url

logger = logging.getLogger(__name__)

KEEP_PEERS = 14 * 86400.0
FORGET_SECONDS = 60.0
MAX_SHOWN = 20_000
"""Connections on the map: each node may name many."""


class Service:
    """Thread-safe. ``start`` begins with its connections, ``close`` ends them. The URL in the options must be the one
    that it can be reached at by then."""

    def __init__(self, options: Options, identity: Identity, source: FlowSource, cache: Path) -> None:
        self.options = options
        self.identity = identity
        self.url = options.url
        self.retry, self.heartbeat = options.retry, options.heartbeat
        self.takes_feed = options.registry and options.feed
        self._source = source
        self._db = Database(cache, options.cache_reset)
        self._nodes = Nodes(self._db, Times(options.offline_after, options.ttl))
        self._peers = Peers(self._db)
        self._change_log = ChangeLog(self._db)
        self.log = self._change_log.id
        self.listing = Listing(self._db)
        self._own = OwnNode(self._db, self._nodes, self._change_log, options, identity, source)
        self._dialer = Dialer(options.timeout)
        self._numbers = Numbers(self._db)
        self._callback = Callback(options.timeout, options.callback_reach, self.headers)
        me = (identity.user_id, self.url)
        self._exchange = Exchange(self._db, self._nodes, options, me, self._callback.user_at)
        self.reception = Reception(self._db, self._nodes, self._peers, self._exchange, options, identity.user_id)
        self._links = Links(self.url, lambda state: Link(self, self._dialer, state), self.keep_link)
        self._closed = threading.Event()
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
        self._links.prepare(list(self.options.connect), self._peers.links())
        self._stop_watching = self._source.watch(self._offer_again)
        self.offer()
        peers = [peer.url for peer in self._peers.connected()]
        logger.info(
            "%s: startup with flows: %d, providers: %d, connections: %d.",
            *(self.url, self.listing.total(), len(peers), len(self._links.urls)),
        )
        self._links.start()
        self._keeper.start()
        if peers:
            threading.Thread(target=self._callback.reconnect, args=(peers,), daemon=True).start()

    def close(self) -> None:
        """End; what is known stays in the cache. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._stop_watching()
        self._links.close()
        self._dialer.close()
        self._callback.close()
        self._links.join()
        if self._keeper.is_alive():
            self._keeper.join()
        self._db.close()

    def _keep(self) -> None:
        """Beat, mark who is silent, and forget what is old."""
        forgot = 0.0
        while not self._closed.wait(self.heartbeat):
            now = time.time()
            try:
                with self._db.write() as db:
                    self._own.beat(db)
                    self._numbers.keep(db)
                    gone = self._nodes.sweep(db, now)
                    if not 0 <= now - forgot < FORGET_SECONDS:  # It looks at all of them.
                        self._nodes.forget_entries(db, now)
                        forgot = now
                    self._peers.forget(db, now - max(KEEP_PEERS, 2 * self.options.ttl))
                    db.execute("INSERT OR REPLACE INTO facts VALUES ('alive', ?)", (now,))
                if gone:
                    self._db.version += 1
            except CoflowsError as error:
                logger.warning("%s: %s", self.url, error)

    # -- what its owner says -----------------------------------------------------------------------------------

    def offer(self) -> None:
        """Say what it offers now. Raises ConfigurationError when that is too much."""
        self._told(self._own.offer(self._links.urls))

    def add_link(self, url: str) -> None:
        """Connect to a registry, now and after a restart. Raises AccessDeniedError or NameInvalidError."""
        self._links.add(check_url(url).url)
        self.offer()

    def remove_links(self, url: str | None = None) -> None:
        """Leave a registry, or all; what this service offers is taken back there. Waits some seconds for that."""
        left = self._links.leave(url)
        with self._db.write() as db:
            gone = sum(self._nodes.drop(db, one, time.time()) for one in left)
        self._told(bool(gone))
        self.offer()

    def _offer_again(self) -> None:
        try:
            if not self._closed.is_set():
                self.offer()
        except CoflowsError as error:
            logger.warning("%s: what is served now could not be offered: %s", self.url, error)

    # -- what other services say -------------------------------------------------------------------------------

    def welcome(self, asker: Asker, said: Announcement) -> Welcome:
        """A service connects."""
        return self.reception.welcome(asker, said)

    def update(self, asker: Asker, update: Update) -> Updated:
        """A peer passes a page on."""
        updated, changed = self.reception.update(asker, update)
        self._told(changed)
        return updated

    def disconnect(self, asker: Asker) -> None:
        """A peer leaves."""
        self.reception.disconnect(asker)
        self._told(True)

    def reconnect(self, asker: Asker | None) -> None:
        """A registry is back, or (None) the owner says that all may be: connect now. Raises AccessDeniedError."""
        if asker is not None:
            self._links.check_known(asker)
            self.reception.once(asker)
        self._links.begin_anew(asker)

    # -- what links ask of their home --------------------------------------------------------------------------

    def headers(self, to: str, method: str, path: str, body: bytes) -> dict[str, str]:
        """Those of a signed request."""
        return sign_request(self.identity, to, method, path, body, self._numbers.next(), self.url)

    def own_offer(self) -> Offer:
        """What this service says of itself."""
        return self._own.said()

    def farewell(self) -> Offer:
        """That it offers nothing any more."""
        return self._own.farewell()

    def left(self) -> None:
        """A registry was left. Others that this service stays with are told that it is there all the same."""
        self._offer_again()

    def heed(self, later: Offer) -> None:
        """What it said of itself before, as others know it."""
        if self._own.heed(later):
            self.offer()

    def give(self, after: Cursor) -> Page:
        """What changed here after the cursor: all that is known, of a node only what it says of itself."""
        return self._change_log.page(after, not self.options.registry, time.time())

    def entries(self, digests: list[str]) -> dict[str, str]:
        """The texts of those entries that are here."""
        return self._nodes.entries(digests)

    def take(self, link: LinkState, page: Page, entries: dict[str, str]) -> list[str]:
        """Take in what a registry knows that this one is connected to; gives the entries that are needed first."""

        def move(db: sqlite3.Connection, log: str, cursor: Cursor) -> None:
            self._peers.keep_link(db, link._replace(log=log, cursor=cursor))

        outcome = self._exchange.take(Source(link.url, everything, move, link.url), page, entries)
        self._told(outcome.changed)
        return outcome.missing

    def keep_link(self, link: LinkState) -> None:
        """Remember a link."""
        with self._db.write() as db:
            self._peers.keep_link(db, link)

    def _told(self, changed: bool) -> None:
        """Flows are listed otherwise: what was counted is void, and whoever this service passes it on to is told."""
        if changed:
            self._db.version += 1
            self._links.wake()

    # -- what it tells of itself -------------------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Whether every connection is in step, or was given up."""
        return self._links.idle

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
        listed = _within(self._nodes.listed(), MAX_SHOWN)
        nodes = [
            {
                "url": node.url,
                "organization": node.organization,
                "user_id": node.user_id,
                "registry": node.registry,
                "feed": node.feed,
                "role": role_of(node.registry, node.feed),
                "status": node.state,
                "flows": node.flows,
                "connect": node.connect,
            }
            for node in listed
        ]
        connections = [{"source": node.url, "target": url} for node in listed for url in node.connect]
        return {"url": self.url, "nodes": nodes, "connections": connections}

    def connections(self) -> dict[str, Any]:
        """Whom this service dials, and who dials it."""
        now = time.time()
        peers = [
            {
                "url": peer.url,
                "user_id": peer.user_id,
                "organization": peer.organization,
                "role": peer.role,
                "status": state_of(peer.seen, now, self._nodes.times),
            }
            for peer in self._peers.connected()
        ]
        return {"connections": self._links.states(), "peers": peers}


def _within(nodes: list[NodeListed], most: int) -> list[NodeListed]:
    """All of them, with ``most`` connections at most."""
    shown = []
    for node in nodes:
        shown.append(node._replace(connect=node.connect[:most]))
        most -= len(shown[-1].connect)
    return shown
