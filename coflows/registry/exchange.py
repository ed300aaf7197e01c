"""Takes in what other services pass on, once it is shown to be their users', and gives what is known here."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from coflows.errors import AccessDeniedError, CoflowsError, SerializationError
from coflows.registry.database import Database
from coflows.registry.entry import FlowEntry, digest_of
from coflows.registry.judging import GONE, Known, Verdict, judge
from coflows.registry.nodes import Claim, Nodes
from coflows.registry.options import Options
from coflows.registry.page import MAX_ENTRIES, Offer, Page
from coflows.registry.record import Beat, Record
from coflows.registry.room import Room

logger = logging.getLogger(__name__)

MAX_PENDING_BYTES = 512 * 2**20
"""Of entries: as soon as so many came, those that became no flow are forgotten. More than one node may have."""


@dataclass(frozen=True, slots=True)
class Source:
    """Who passes a page on. ``takes`` says whose nodes may come from there; ``move`` notes up to where it was taken, in
    the same transaction."""

    url: str
    takes: Callable[[Record | Beat], bool]
    move: Callable[..., None]
    place: str = ""
    """See Claim."""


class Outcome(NamedTuple):
    """Which entries are needed before the page can be taken; with none, it was. ``changed``: flows are listed
    otherwise."""

    missing: list[str]
    changed: bool = False


class Exchange:
    """Thread-safe. ``answers`` asks a URL whose node is there, when two users claim it."""

    def __init__(
        self, db: Database, nodes: Nodes, options: Options, own: tuple[str, str], answers: Callable[[str], str | None]
    ) -> None:
        self._db = db
        self._nodes = nodes
        self._options = options
        self._own = own
        self._answers = answers
        self._room = Room(nodes, options)
        self._kept = 0

    def take(self, source: Source, page: Page, entries: Mapping[str, str]) -> Outcome:
        """Take a page, or say what it needs first; then the entries that came are kept. What does not hold is left out.
        Raises SerializationError for entries that are none."""
        now = time.time()
        claims = [claim for offer in page.offers if (claim := self._claim(source, offer, now)) is not None]
        named = {digest for claim in claims if claim.record is not None for digest in claim.record.flows}
        texts = {digest: text for digest, text in entries.items() if digest in named}
        for digest, text in texts.items():
            if digest_of(text) != digest:
                raise SerializationError(f"The entry {digest} is another one.")
            FlowEntry.from_text(text)
        with self._db.write() as db:
            self._forget(db, sum(map(len, texts.values())), now)
            self._nodes.keep_entries(db, texts, now)
            missing = self._nodes.missing(db, sorted(named))
            if missing:
                return Outcome(missing[:MAX_ENTRIES])
            changed = False
            for claim in claims:
                changed |= self._apply(db, claim, now)
            source.move(db, page.log, page.upto)
        if changed:
            self._db.version += 1
        return Outcome([], changed)

    def _forget(self, db: sqlite3.Connection, size: int, now: float) -> None:
        """Whoever sends entries of which no flow becomes is not let fill the disk until they are forgotten."""
        self._kept += size
        if self._kept > MAX_PENDING_BYTES:
            self._nodes.forget_pending(db, now)
            self._kept = size

    def _claim(self, source: Source, offer: Offer, now: float) -> Claim | None:
        """What an offer says, when it is news and its user signed it."""
        try:
            signed_beat = offer.beat.signed
            beat = Beat.read(signed_beat)
            signed_record = None if offer.record is None else offer.record.signed
            record = None if signed_record is None else Record.read(signed_record)
            if record is not None and (record.user_id, record.url) != (beat.user_id, beat.url):
                raise AccessDeniedError("A record comes with the beat of another node.")
            if (beat.user_id, beat.url) == self._own or not source.takes(record or beat):
                return None
            known = self._nodes.known(beat.user_id, beat.url)
            verdict = self._judge(known, record, beat, offer.age, now)
            if verdict not in (Verdict.RECORD, Verdict.BEAT):
                return None
            beat.check(signed_beat)
            if known is None or known.state == GONE:
                self.check_place(beat.user_id, beat.url)
            if verdict is Verdict.BEAT:
                record, signed_record = None, None
            elif record is not None and signed_record is not None:
                record.check(signed_record)
                self._check_limits(record, known)
        except CoflowsError as error:
            logger.warning("Refused what %s passes on: %s", source.url, error)
            return None
        return Claim(record, signed_record, beat, signed_beat, now - offer.age, source.url, source.place)

    def _judge(self, known: Known | None, record: Record | None, beat: Beat, age: float, now: float) -> Verdict:
        return judge(known, None if record is None else record.sequence, beat.beat, age, now, self._nodes.times)

    def _check_limits(self, record: Record, known: Known | None) -> None:
        if len(record.flows) > self._options.max_flows_per_node:
            raise AccessDeniedError(
                f"The node {record.url} offers {len(record.flows)} flows; at most "
                f"{self._options.max_flows_per_node} are taken."
            )
        if known is None and self._nodes.count(record.user_id) >= self._options.max_nodes_per_user:
            raise AccessDeniedError(f"User {record.user_id} has {self._options.max_nodes_per_user} nodes already.")

    def check_clock(self, offer: Offer) -> None:
        """Raise AccessDeniedError when what is said now would be taken for older than anything that counts, or is dated
        ahead."""
        beat, now = Beat.read(offer.beat.signed), time.time()
        verdict = self._judge(None, None, beat, 0.0, now)
        if verdict in (Verdict.STALE, Verdict.AHEAD):
            off = now - beat.beat / 1000
            raise AccessDeniedError(
                f"By its clock, {beat.url} was there {off:.0f} s ago."
                if verdict is Verdict.STALE
                else f"The clock of {beat.url} is {-off:.0f} s ahead.",
                hint="Is the clock of its machine right?",
            )

    def check_place(self, user_id: str, url: str) -> None:
        """Raise AccessDeniedError when the URL is another user's: first come, until the URL itself says otherwise."""
        holder = self._own[0] if url == self._own[1] else self._nodes.holder(url)
        if holder is not None and holder != user_id and self._answers(url) != user_id:
            raise AccessDeniedError(
                f"{url} is the node of user {holder}, and does not answer as that of {user_id}.",
                hint="Give the node a URL of its own, at which it can be reached.",
            )

    def _apply(self, db: sqlite3.Connection, claim: Claim, now: float) -> bool:
        """Judged once more, inside the transaction: the same may have come by another way meanwhile."""
        known = self._nodes.known(claim.beat.user_id, claim.beat.url, db)
        verdict = self._judge(known, claim.record, claim.beat, now - claim.seen, now)
        if verdict is Verdict.RECORD:
            try:
                self._room.make(db, claim, known is None)
            except AccessDeniedError as error:
                logger.warning("Refused what %s passes on: %s", claim.via, error)
                return False
            self._nodes.take_record(db, claim)
            changed = True
        else:
            changed = verdict is Verdict.BEAT and self._nodes.take_beat(db, claim)
        if changed:
            # Whose place it is was settled: others who claim it are not there.
            self._nodes.vacate(db, claim.beat.url, claim.beat.user_id, now)
        return changed


def everything(_said: Record | Beat) -> bool:
    """A registry takes all that comes."""
    return True


def only(user_id: str, url: str) -> Callable[[Record | Beat], bool]:
    """Of a node, what it says of itself."""
    return lambda said: (said.user_id, said.url) == (user_id, url)


def nothing(_said: Record | Beat) -> bool:
    """A provider takes nothing from registries."""
    return False
