"""Takes in what other services ask of this one: that they connect, what they pass on, that they leave."""

from __future__ import annotations

import logging
import sqlite3
import time

from coflows.errors import AccessDeniedError, RegistryRefusedError
from coflows.registry.database import Database
from coflows.registry.exchange import Exchange, Source, everything, nothing, only
from coflows.registry.link import NOT_CONNECTED
from coflows.registry.messages import Announcement, Welcome
from coflows.registry.nodes import Nodes
from coflows.registry.options import Options
from coflows.registry.page import Cursor, Update, Updated
from coflows.registry.peers import Peer, Peers
from coflows.registry.record import NODE, Beat, Record, role_of
from coflows.registry.requests import Asker

logger = logging.getLogger(__name__)


class Reception:
    """Thread-safe. Whoever asks has signed for it; here it is seen to that he asks once."""

    def __init__(
        self, db: Database, nodes: Nodes, peers: Peers, exchange: Exchange, options: Options, user_id: str
    ) -> None:
        self._db = db
        self._nodes = nodes
        self._peers = peers
        self._exchange = exchange
        self._options = options
        self._user_id = user_id

    def welcome(self, asker: Asker, said: Announcement) -> Welcome:
        """A service connects. Raises AccessDeniedError, SerializationError or RegistryRefusedError."""
        options = self._options
        if not options.registry:
            raise AccessDeniedError(f"{options.url} is a node, to which none connect.", hint="Connect to a registry.")
        if said.offer.record is None:
            raise AccessDeniedError("Who connects says who it is.")
        record = Record.read(said.offer.record.signed).check(said.offer.record.signed)
        if (record.user_id, record.url) != (asker.user_id, asker.url) or record.url == options.url:
            raise AccessDeniedError(f"The record of {record.url} is not that of {asker.url}, which connects.")
        self._exchange.check_clock(said.offer)
        try:
            self._exchange.check_place(record.user_id, record.url)
        except AccessDeniedError as error:
            raise RegistryRefusedError(error.message, status=409, reason="place_taken", hint=error.hint) from error
        role = role_of(record.registry, record.feed)
        with self._db.write() as db:
            self._use(db, asker)
            peer = self._peers.connect(db, asker, record.organization, role, said.fresh)
        beat = Beat.read(said.offer.beat.signed)
        known = self._nodes.known(asker.user_id, asker.url)
        later = known is not None and (known.sequence > record.sequence or known.beat > beat.beat)
        logger.info("%s: connect from %s (%s) with flows: %d.", options.url, asker.url, role, len(record.flows))
        return Welcome(
            user_id=self._user_id,
            url=options.url,
            organization=options.organization or "",
            registry=options.registry,
            feed=options.feed,
            log=peer.log,
            cursor=peer.cursor,
            later=self._nodes.offer(asker.user_id, asker.url) if later else None,
        )

    def update(self, asker: Asker, update: Update) -> tuple[Updated, bool]:
        """A peer passes a page on; the other value is whether flows are listed otherwise now. Raises
        RegistryRefusedError for who is not connected."""
        peer, page = self._peer(asker), update.page
        expected = peer.cursor if page.log == peer.log else Cursor()
        if page.after != expected:
            return Updated(log=page.log, cursor=expected), False
        takes = only(asker.user_id, asker.url) if peer.role == NODE else everything if self._options.feed else nothing

        def move(db: sqlite3.Connection, log: str, cursor: Cursor) -> None:
            self._peers.move(db, asker.user_id, asker.url, log, cursor)

        outcome = self._exchange.take(Source(asker.url, takes, move, asker.place), page, update.entries)
        cursor = page.after if outcome.missing else page.upto
        return Updated(log=page.log, cursor=cursor, missing=outcome.missing), outcome.changed

    def disconnect(self, asker: Asker) -> None:
        """A peer leaves: what it passed on last is listed no more. Raises RegistryRefusedError."""
        self._peer(asker)
        with self._db.write() as db:
            self._peers.disconnect(db, asker.user_id, asker.url)
            self._nodes.drop(db, asker.url, time.time())
        logger.info("%s: disconnect from %s.", self._options.url, asker.url)

    def once(self, asker: Asker) -> None:
        """Take the number of a request. Raises AccessDeniedError when it was taken."""
        with self._db.write() as db:
            self._use(db, asker)

    def _peer(self, asker: Asker) -> Peer:
        """The peer that asks, once its request's number is taken."""
        peer = self._peers.find(asker.user_id, asker.url)
        if peer is None or not peer.connected:
            raise RegistryRefusedError(
                f"{asker.url} is not connected.", status=409, reason=NOT_CONNECTED, hint="POST /connect first."
            )
        self.once(asker)
        return peer

    def _use(self, db: sqlite3.Connection, asker: Asker) -> None:
        self._peers.use_number(db, asker, time.time(), self._options.max_nodes)
