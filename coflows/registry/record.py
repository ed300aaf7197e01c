"""What a node says of itself, signed by its user, and the beats that say it is still there."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, StringConstraints, ValidationError, field_validator

from coflows.errors import NameInvalidError, SerializationError
from coflows.identity.keys import Identity
from coflows.model.closed import Closed
from coflows.model.names import check_user_id
from coflows.registry.entry import Line, first_problem
from coflows.registry.signed import Signed, canonical, parsed
from coflows.registry.urls import check_url

MAX_FLOWS = 10_000
MAX_CONNECT = 64
MAX_NUMBER = 2**53
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Number = Annotated[int, Field(ge=0, lt=MAX_NUMBER)]
NODE, REGISTRY, PROVIDER = "node", "registry", "provider"


def role_of(registry: bool, feed: bool) -> str:
    """The word for what a service does."""
    return NODE if not registry else REGISTRY if feed else PROVIDER


class _Statement(Closed):
    """What is said of a node, by its user alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    user_id: str
    url: str

    @field_validator("user_id")
    @classmethod
    def _user_id(cls, value: str) -> str:
        return check_user_id(value)

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if check_url(value).url != value:
            raise ValueError("it is not in its one form")
        return value

    @classmethod
    def _kind(cls) -> str:
        return cls.__name__.lower()

    def sign(self, identity: Identity) -> Signed:
        """As it travels."""
        return Signed.by(identity, self._kind(), canonical(self.model_dump()))

    @classmethod
    def read(cls, signed: Signed) -> Self:
        """What is said, whoever signed it. Raises SerializationError."""
        try:
            return cls.model_validate(parsed(signed.text))
        except (ValidationError, NameInvalidError) as error:
            raise SerializationError(f"This is no {cls._kind()} of a node: {first_problem(error)}.") from error

    def check(self, signed: Signed) -> Self:
        """Raise AccessDeniedError unless its user signed it."""
        signed.check(self.user_id, self._kind())
        return self


class Record(_Statement):
    """A node and the flows it offers, as digests of their entries. Of two, the one with the greater ``sequence`` holds.
    A withdrawn one offers nothing any more."""

    sequence: Number
    organization: Line = ""
    registry: bool
    feed: bool
    broker: Line | None = None
    connect: Annotated[list[str], Field(max_length=MAX_CONNECT)] = []
    flows: Annotated[list[Digest], Field(max_length=MAX_FLOWS)] = []
    withdrawn: bool = False

    @field_validator("connect")
    @classmethod
    def _connect(cls, value: list[str]) -> list[str]:
        return [check_url(url).url for url in value]

    def same_as(self, other: Record | None) -> bool:
        """Whether they say the same, their sequence aside."""
        return other is not None and self._said() == other._said()

    def _said(self) -> dict[str, Any]:
        return self.model_dump(exclude={"sequence"})


class Beat(_Statement):
    """That a node was there, at ``beat`` milliseconds of its own clock (never the same twice)."""

    beat: Number
