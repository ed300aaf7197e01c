"""Decides, without I/O, what a grant may still spend: each of its blocks has a budget, and all of them pay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from coflows.access.grants import Grant
from coflows.errors import GrantSpentError


class Spent(NamedTuple):
    """How much was used; or what something costs."""

    calls: int = 0
    instances: int = 0
    bytes: int = 0


CALL = Spent(calls=1)
INSTANCE = Spent(instances=1)


def is_limited(grant: Grant) -> bool:
    """Whether messages to what was mounted with it are counted."""
    return any(block.limits.calls is not None or block.limits.bytes is not None for block in grant.blocks)


def spend(grant: Grant, spent: Mapping[str, Spent], cost: Spent) -> dict[str, Spent]:
    """What the blocks have spent, by id, once this is paid. Raises GrantSpentError when one of them cannot."""
    after: dict[str, Spent] = {}
    for block in grant.blocks:
        new = Spent(*(had + more for had, more in zip(spent.get(block.id, Spent()), cost, strict=True)))
        for name, limit, amount, more in zip(Spent._fields, block.limits, new, cost, strict=True):
            if limit is not None and more and amount > limit:
                raise GrantSpentError(
                    f"The grant for {grant.endpoint!r} is used up: it allows {limit} {name}, with all who were given a "
                    "part of it.",
                    hint="Ask its owner for a new one.",
                )
        after[block.id] = new
    return after
