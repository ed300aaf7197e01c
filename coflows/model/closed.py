"""Models of what others send: they take no other fields than theirs, and what is wrong is found without much ado.

pydantic makes an error, and an exception where a validator of ours refuses, of each key of a dict that is wrong: a
megabyte of wrong keys became half a gigabyte. So dicts are measured before their keys are looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from pydantic import BaseModel, BeforeValidator, ConfigDict, model_validator

from coflows.shown import in_one_line

MAX_PROBLEMS = 1000
"""Beyond so many errors none is looked at."""


class Closed(BaseModel):
    """Takes no fields but its own; of more than it has, one error tells."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _measured(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > len(cls.model_fields):
            raise ValueError(f"it has {len(value)} fields, of which at most {len(cls.model_fields)} are known")
        return value


def at_most(most: int) -> BeforeValidator:
    """For a dict with at most so many keys."""

    def measured(value: Any) -> Any:
        if isinstance(value, Mapping) and len(value) > most:
            raise ValueError(f"it has {len(value)} keys; at most {most} are taken")
        return value

    return BeforeValidator(measured)


def _named(value: Any) -> Any:
    if isinstance(value, Mapping) and not all(type(key) is str for key in value):
        raise ValueError("a key of it is no text")
    return value


NAMED = BeforeValidator(_named)
"""For a dict whose keys are texts."""


class Invalid(Protocol):
    """pydantic's ValidationError."""

    def error_count(self) -> int:
        """How many there are."""

    def errors(self, *, include_url: bool, include_context: bool, include_input: bool) -> list[Any]:
        """All of them."""


def problems(error: Invalid) -> list[tuple[str, str, str]]:
    """Where, what, and of which type, in short texts that command no terminal and make no line; without the values,
    which may be secret. One alone that names no place when there are very many."""
    count = error.error_count()
    if count > MAX_PROBLEMS:
        return [("", f"{count} things in it are wrong", "")]
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [(_place(one["loc"]), in_one_line(str(one["msg"]), 200), str(one["type"])) for one in found]


def _place(parts: tuple[int | str, ...]) -> str:
    text = ".".join(str(part)[:80] for part in parts[:8])
    return repr(text[:200])[1:-1]
