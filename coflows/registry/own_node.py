"""A service's own node: what it offers, signed anew whenever that changes, and its beats."""

from __future__ import annotations

import sqlite3
import threading
import time

from coflows.errors import AccessDeniedError, ConfigurationError
from coflows.identity.keys import Identity
from coflows.registry.change_log import ChangeLog
from coflows.registry.database import Database, next_beat, next_number
from coflows.registry.entry import digest_of
from coflows.registry.judging import is_ahead
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.options import Options
from coflows.registry.page import Offer, SignedText
from coflows.registry.record import MAX_CONNECT, Beat, Record
from coflows.registry.sources import FlowSource


class OwnNode:
    """Thread-safe."""

    def __init__(
        self, db: Database, nodes: Nodes, log: ChangeLog, options: Options, identity: Identity, source: FlowSource
    ) -> None:
        self._db = db
        self._nodes = nodes
        self._log = log
        self._options = options
        self._identity = identity
        self._source = source
        self._lock = threading.Lock()

    def offer(self, connect: list[str]) -> bool:
        """Make the record say what is offered now, and whom the service is connected to; False when it says so already.
        Raises ConfigurationError when it is too much for a node."""
        with self._lock:
            entries = self._source.entries()
            if len(entries) > self._options.max_flows_per_node:
                raise ConfigurationError(
                    f"{len(entries)} flows are more than a node may offer, {self._options.max_flows_per_node}."
                )
            texts = {digest_of(text): text for text in (entry.text() for entry in entries)}
            said = self._record(sorted(texts), sorted(connect)[:MAX_CONNECT])
            with self._db.write() as db:
                changed = not said.same_as(self._nodes.own_record(db))
                if changed:
                    said = said.model_copy(update={"sequence": next_number(db, "sequence")})
                    self._nodes.keep_entries(db, texts, time.time())
                    self._nodes.take_record(db, self._claim(db, said))
                else:
                    self.beat(db)
            return changed

    def beat(self, db: sqlite3.Connection) -> None:
        """Say that the service is there."""
        self._nodes.take_beat(db, self._claim(db, None))

    def said(self) -> Offer:
        """Its record and last beat."""
        return self._log.own_offer()

    def farewell(self) -> Offer:
        """That nothing is offered any more; the service's own listing stays. What it offers next is signed as later."""
        with self._db.write() as db:
            record = self._record([], [], next_number(db, "sequence"), withdrawn=True)
            claim = self._claim(db, record)
            self._nodes.outdate(db)
        return Offer(record=SignedText.of(record.sign(self._identity)), beat=SignedText.of(claim.signed_beat))

    def heed(self, later: Offer) -> bool:
        """Others know this of it, perhaps from before the cache was lost; True when what it offers has to be signed as
        later than that. Raises AccessDeniedError or SerializationError when it never said that: nobody else moves its
        numbers."""
        me = (self._identity.user_id, self._options.url)
        beat = Beat.read(later.beat.signed).check(later.beat.signed)
        record = None if later.record is None else Record.read(later.record.signed).check(later.record.signed)
        if is_ahead(beat.beat, time.time()):
            raise AccessDeniedError("This node said that when its clock was wrong: nobody takes it.")
        if (beat.user_id, beat.url) != me or record is None or (record.user_id, record.url) != me:
            raise AccessDeniedError("What is said to be this node's is that of another one.")
        own = self._nodes.known(*me)
        if own is not None and record.sequence <= own.sequence and beat.beat <= own.beat:
            return False
        with self._db.write() as db:
            next_number(db, "sequence", record.sequence + 1)
            next_number(db, "beat", beat.beat + 1)
            self._nodes.outdate(db)
        return True

    def _record(self, digests: list[str], connect: list[str], sequence: int = 0, withdrawn: bool = False) -> Record:
        options = self._options
        return Record(
            user_id=self._identity.user_id,
            url=options.url,
            sequence=sequence,
            organization=options.organization or "",
            registry=options.registry,
            feed=options.feed,
            broker=options.broker,
            connect=connect,
            flows=digests,
            withdrawn=withdrawn,
        )

    def _claim(self, db: sqlite3.Connection, record: Record | None) -> Claim:
        beat = Beat(user_id=self._identity.user_id, url=self._options.url, beat=next_beat(db))
        signed = None if record is None else record.sign(self._identity)
        return Claim(record, signed, beat, beat.sign(self._identity), time.time(), "")
