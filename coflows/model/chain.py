"""Where a call comes from: the user at its root, and the turns that it went through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from coflows.errors import NameInvalidError, SerializationError
from coflows.model.messages import check_moment
from coflows.model.names import check_endpoint, check_user_id

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
        """A msgpack-able list: the users, each once and the root first, deadline, budget, and the hops, with the number
        of the user in each. About 60 bytes a user and 30 a hop; ``from_list`` reads it back."""
        numbers = {self.root: 0}
        hops = [
            (numbers.setdefault(one.user_id, len(numbers)), one.flow_endpoint, _packed(one.flow_id))
            for one in self.hops
        ]
        return [list(numbers), self.deadline, self.budget, hops]

    @classmethod
    def from_list(cls, value: object) -> CallChain:
        """Check and build; raises SerializationError. Safe on data from other users."""
        try:
            if type(value) is not list or len(value) != 4:
                raise SerializationError("it has other parts")
            users, until, calls, links = value
            if type(links) is not list or len(links) > MAX_HOPS:
                raise SerializationError(f"it is longer than {MAX_HOPS}")
            if type(users) is not list or not 1 <= len(users) <= len(links) + 1:
                raise SerializationError("it has no users, or too many")
            if calls is not None and not (type(calls) is int and 0 <= calls <= MAX_BUDGET):
                raise SerializationError("its budget is no number of calls")
            for one in users:
                check_user_id(one)
            passed = [Hop(_user(users, number), check_endpoint(name), _unpacked(key)) for number, name, key in links]
            return cls(users[0], tuple(passed), None if until is None else check_moment(until), calls)
        except (TypeError, ValueError) as error:  # SerializationError and NameInvalidError are ValueErrors.
            raise SerializationError(f"The chain of a call is malformed: {error}.") from error

    def __str__(self) -> str:
        return " -> ".join((f"user {self.root[:8]}", *map(str, self.hops)))


def _user(users: list[str], number: object) -> str:
    if type(number) is not int or not 0 <= number < len(users):
        raise SerializationError("a link names no user of it")
    return users[number]


def _packed(flow_id: str) -> bytes:
    return bytes.fromhex(flow_id.replace("-", ""))


def _unpacked(value: object) -> str:
    if type(value) is not bytes or len(value) != 16:
        raise NameInvalidError("an instance's id has 16 bytes")
    digits = value.hex()
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
