"""A page of a service's change log, as another service pulls it or is given it."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from coflows.model.closed import Closed, at_most
from coflows.registry.entry import MAX_ENTRY_BYTES
from coflows.registry.record import Digest, Number
from coflows.registry.signed import Signed

MAX_RECORDS = 100
MAX_BEATS = 1000
MAX_ENTRIES = 500
MAX_RECORD_BYTES = 1_000_000
MAX_PAGE_BYTES = 1_000_000
MAX_ENTRIES_BYTES = 1_000_000
MAX_BODY_BYTES = 4_000_000
"""A page whose records and beats are as large as they may be, and its entries, are less."""

LogId = Annotated[str, StringConstraints(pattern=r"^([0-9a-f]{16})?$")]
EntryText = Annotated[str, StringConstraints(max_length=MAX_ENTRY_BYTES)]


class _Part(Closed):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SignedText(_Part):
    """A text and its signature in hex."""

    text: Annotated[str, StringConstraints(max_length=MAX_RECORD_BYTES)]
    signature: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]

    @property
    def signed(self) -> Signed:
        """To check."""
        return Signed(self.text, self.signature)

    @classmethod
    def of(cls, signed: Signed) -> SignedText:
        """To send."""
        return cls(text=signed.text, signature=signed.signature)


class Offer(_Part):
    """What is said of a node: its record, unless the other side has it, and its last beat, ``age`` seconds ago."""

    record: SignedText | None = None
    beat: SignedText
    age: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 0.0


class Cursor(_Part):
    """Up to where a log was read: its records, and its beats."""

    records: Number = 0
    beats: Number = 0


class Page(_Part):
    """The changes of ``log`` after one cursor up to another. ``more``: there are others after it."""

    log: LogId
    after: Cursor
    upto: Cursor
    more: bool = False
    offers: Annotated[list[Offer], Field(max_length=MAX_RECORDS + MAX_BEATS)] = []


class Update(_Part):
    """A page that is given, and the texts of entries that the receiver lacks, by digest."""

    page: Page
    entries: Annotated[dict[Digest, EntryText], at_most(MAX_ENTRIES)] = {}


class Updated(_Part):
    """Up to where the receiver has the sender's log now; which entries it needs before it goes on."""

    log: LogId
    cursor: Cursor
    missing: list[Digest] = []


class Wanted(_Part):
    """Entries to send."""

    digests: Annotated[list[Digest], Field(max_length=MAX_ENTRIES)]


class Entries(_Part):
    """Those of the entries that there are, by digest."""

    entries: Annotated[dict[str, str], at_most(MAX_ENTRIES)]
