"""Where a call comes from: the user at its root, and the turns that it went through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from coflows.errors import NameInvalidError, SerializationError
from coflows.model.messages import check_moment
from coflows.model.names import check_endpoint, decode_user_id, encode_user_id

MAX_HOPS = 64
MAX_BUDGET = 2**53


class Hop(NamedTuple):
    """A turn of an instance that sent the call on."""

    user_id: str
    flow_endpoint: str
    flow_id: str

    def __str__(self) -> str:
        return f"{self.flow_endpoint}@{self.user_id[:8]} ({self.flow_id[:8]})"


@dataclass(frozen=True, slots=True)
class CallChain:
    """``root`` is the user who began it, ``hops`` are the turns between him and the message, the last one its sender's.
    ``deadline`` (seconds since the epoch): nothing of it begins later; ``budget``: how many more calls may come of the
    message. Each sender vouches for what he was told; a call without a chain has its sender as the root."""

    root: str
    hops: tuple[Hop, ...] = ()
    deadline: float | None = None
    budget: int | None = None

    def to_list(self) -> list[Any]:
        """A msgpack-able list, about 60 bytes a hop; ``from_list`` reads it back."""
        hops = [(decode_user_id(one.user_id), one.flow_endpoint, _packed(one.flow_id)) for one in self.hops]
        return [decode_user_id(self.root), self.deadline, self.budget, hops]

    @classmethod
    def from_list(cls, value: object) -> CallChain:
        """Check and build; raises SerializationError. Safe on data from other users."""
        try:
            if type(value) is not list or len(value) != 4:
                raise SerializationError("it has other parts")
            begun_by, until, calls, links = value
            if type(links) is not list or len(links) > MAX_HOPS:
                raise SerializationError(f"it is longer than {MAX_HOPS}")
            if calls is not None and not (type(calls) is int and 0 <= calls <= MAX_BUDGET):
                raise SerializationError("its budget is no number of calls")
            passed = [Hop(_user(user), check_endpoint(name), _unpacked(flow_id)) for user, name, flow_id in links]
            return cls(_user(begun_by), tuple(passed), None if until is None else check_moment(until), calls)
        except (TypeError, ValueError) as error:  # SerializationError and NameInvalidError are ValueErrors.
            raise SerializationError(f"The chain of a call is malformed: {error}.") from error

    def __str__(self) -> str:
        return " -> ".join((f"user {self.root[:8]}", *map(str, self.hops)))


def _user(value: object) -> str:
    if type(value) is not bytes or len(value) != 32:
        raise NameInvalidError("a user's key has 32 bytes")
    return encode_user_id(value)


def _packed(flow_id: str) -> bytes:
    return bytes.fromhex(flow_id.replace("-", ""))


def _unpacked(value: object) -> str:
    if type(value) is not bytes or len(value) != 16:
        raise NameInvalidError("an instance's id has 16 bytes")
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
