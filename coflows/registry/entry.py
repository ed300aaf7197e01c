"""What a node says of one flow."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, field_validator

from coflows.errors import NameInvalidError, SerializationError
from coflows.model.closed import Closed, problems
from coflows.model.names import check_endpoint
from coflows.registry.signed import canonical
from coflows.shown import in_one_line

MAX_ENTRY_BYTES = 32 * 1024
MAX_TAGS = 32

Line = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, StringConstraints(max_length=8000, pattern=r"^[^\x00]*$")]
Tag = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]
Link = Annotated[str, StringConstraints(max_length=1000, pattern=r"^(https?://[^\s\x00-\x1f\x7f]+)?$")]


class FlowEntry(Closed):
    """A flow that a node offers. ``key`` is its own among those of its node. ``url`` is "" where there is no page but
    the node's; ``flow_endpoint`` is None for a flow that is only described."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Annotated[Line, Field(min_length=1)]
    name: Annotated[Line, Field(min_length=1)]
    description: Text = ""
    author: Line = ""
    tags: Annotated[list[Tag], Field(max_length=MAX_TAGS)] = []
    url: Link = ""
    flow_endpoint: str | None = None
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}

    @field_validator("flow_endpoint")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        return None if value is None else check_endpoint(value)

    def text(self) -> str:
        """Its one form. Raises SerializationError when it is too large, or when nobody else could read it."""
        text = self._written()
        size = len(text.encode())
        if size > MAX_ENTRY_BYTES:
            raise SerializationError(
                f"What is said of {self.name!r} has {size} bytes; at most {MAX_ENTRY_BYTES} are taken.",
                hint="Shorten its description or schemas.",
            )
        FlowEntry.from_text(text)
        return text

    @classmethod
    def from_text(cls, text: str) -> FlowEntry:
        """Read what a node sent, in its one form: what is nested too deep, no number, no text or said twice
        is one thing to one reader of JSON and another to the next. Raises SerializationError."""
        try:
            if len(text.encode()) > MAX_ENTRY_BYTES:
                raise SerializationError(f"An entry has more than {MAX_ENTRY_BYTES} bytes.")
            entry = cls.model_validate_json(text)
        except (ValidationError, NameInvalidError, UnicodeEncodeError) as error:
            raise SerializationError(f"This is no flow's entry: {first_problem(error)}.") from error
        if entry._written() != text:
            raise SerializationError(f"The entry of {entry.name!r} is not in its one form.")
        return entry

    def _written(self) -> str:
        try:
            return canonical(self.model_dump())
        except (ValueError, TypeError, RecursionError) as error:
            raise SerializationError(f"The schemas of {self.name!r} are no JSON: {error}.") from error


def digest_of(text: str) -> str:
    """The name of an entry's text among all: 64 hex digits."""
    return hashlib.blake2b(text.encode(), digest_size=32).hexdigest()


def flow_id(user_id: str, node_url: str, key: str) -> str:
    """A flow's id, 32 hex digits: it stays while its owner, its node and its key do, and is nobody else's."""
    return hashlib.blake2b("\n".join((user_id, node_url, key)).encode(), digest_size=16).hexdigest()


def first_problem(error: Exception) -> str:
    """Where and what, in one line."""
    if isinstance(error, ValidationError):
        where, what, kind = problems(error)[0]
        what = what.removeprefix("Value error, ").rstrip(".")
        return f"{where or 'it'} is not known" if kind == "extra_forbidden" else f"{where or 'it'}: {what}"
    return in_one_line(str(error).rstrip("."))


def page_of(node_url: str, flow_id: str) -> str:
    """Where a flow's page is when its node names none."""
    return f"{node_url}/flows/{flow_id}"
