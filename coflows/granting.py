"""Grants of a user's endpoints: issued, handed on, taken back, and what was spent of them, counted in his store."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from coflows.access.budget import Spent, spend
from coflows.access.grants import PREFIX, Grant, Limits, issue, narrow, read_grant
from coflows.access.rules import revoked
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoints import find_endpoint, not_served, read
from coflows.errors import GrantError
from coflows.model.layout import GRANTS, grant_key, revoked_key, spent_key
from coflows.model.names import check_endpoint, check_token, check_user_id
from coflows.policies import changed
from coflows.store.base import ABSENT, Entry, Store

LIFETIME = 30 * 86400.0
"""Seconds that a grant is good for unless another time is said."""
NEVER = 2.0**53


@dataclass(frozen=True, slots=True)
class Issued:
    """A grant that this user has issued (its token is with its holder), what was spent of it and whether it was taken
    back. ``expires`` and ``at`` are in seconds since the epoch."""

    id: str
    holder: str
    endpoint: str
    at: float
    expires: float
    limits: Limits
    spent: Spent
    revoked: bool


def grant_flow(
    cl: Client,
    holder: str,
    flow_endpoint: str,
    *,
    lifetime: float = LIFETIME,
    calls: int | None = None,
    instances: int | None = None,
    bytes: int | None = None,
) -> str:
    """A token by which the user ``holder``, and nobody else, may fetch an endpoint of this user's for ``lifetime``
    seconds, whoever else may: at most so many ``instances``, with so many ``calls`` of so many ``bytes`` together.

    Raises NameInvalidError, EndpointNotFoundError, or GrantError for a budget that is none.
    """
    if find_endpoint(cl.store, check_endpoint(flow_endpoint)) is None:
        raise not_served(flow_endpoint, cl.user_id)
    now = time.time()
    limits = Limits(calls, instances, bytes)
    token = issue(cl.identity, flow_endpoint, check_user_id(holder), _end(now, lifetime), limits)
    grant = read_grant(token)
    value = {"holder": holder, "endpoint": flow_endpoint, "limits": limits, "at": now, "until": grant.expires}
    cl.store.commit({grant_key(grant.id): encode(value)})
    return token


def narrow_grant(
    cl: Client,
    grant: str,
    holder: str,
    *,
    lifetime: float | None = None,
    calls: int | None = None,
    instances: int | None = None,
    bytes: int | None = None,
) -> str:
    """Hand a grant that this user holds on to another one, or a part of it: what is not said stays as it is. What he
    spends counts for both. Raises GrantError when more is asked for than there is; nobody else needs to be told."""
    expires = None if lifetime is None else _end(time.time(), lifetime)
    return narrow(cl.identity, grant, check_user_id(holder), expires, Limits(calls, instances, bytes))


def _end(now: float, lifetime: float) -> int:
    try:
        return int(now + lifetime)
    except (ValueError, OverflowError):
        raise GrantError(f"A grant is good for some seconds, not {lifetime}.", hint="Say how long.") from None


def revoke_grant(cl: Client, grant: str) -> str:
    """Take back a grant of this user's endpoint, given its token or id, and all that it was handed on as. Within 5
    seconds nothing can be fetched with it, and messages to what was are refused (GrantRevokedError). Gives its id.
    Raises GrantError for what is no grant of this user's, NameInvalidError for what is no id."""
    until = NEVER
    if grant.startswith(PREFIX):
        known = read_grant(grant)
        if known.owner != cl.user_id:
            raise GrantError(f"The grant is for an endpoint of user {known.owner}.", hint="Only he can take it back.")
        block, until = known.id, float(known.expires)
    else:
        block = check_token(grant, "Grant id")
        entry = cl.store.get(grant_key(block)) or cl.store.get(spent_key(block))
        if entry is not None:
            until = float(read(entry.value)["until"])
    cl.store.commit({revoked_key(block): encode({"at": time.time(), "until": until}), **changed()})
    return block


def list_grants(cl: Client) -> list[Issued]:
    """What this user has issued and has not expired long ago, the oldest first."""
    found = []
    for entry in cl.store.scan(GRANTS):
        block = entry.key.removeprefix(GRANTS)
        value, beside = read(entry.value), cl.store.get_many([spent_key(block), revoked_key(block)])
        spent = read_spent(beside.get(spent_key(block)))
        gone = revoked_key(block) in beside
        limits = Limits(*value["limits"])
        found.append(
            Issued(block, value["holder"], value["endpoint"], value["at"], value["until"], limits, spent, gone)
        )
    return sorted(found, key=lambda one: one.at)


# -- counting --------------------------------------------------------------------------------------------------


class Account:
    """What the blocks of grants have spent, read now; ``pay`` reckons, and a commit of ``writes`` on ``conditions``
    counts it: once, and not when a block was taken back or has paid for something else meanwhile."""

    def __init__(self, store: Store, grants: Iterable[Grant], also: Iterable[str] = ()) -> None:
        """``also``: keys that are read with it, see ``found``."""
        blocks = {block.id: block.expires for grant in grants for block in grant.blocks}
        keys = [key for block in blocks for key in (spent_key(block), revoked_key(block))]
        self.found: Mapping[str, Entry] = store.get_many([*keys, *also])
        self._expires = blocks
        self._spent = {block: read_spent(self.found.get(spent_key(block))) for block in blocks}
        self._paid: set[str] = set()
        self.conditions: dict[str, int] = {}
        """What must hold for the commit; the versions of what was paid from."""

    def check(self, grant: Grant) -> None:
        """Raises GrantRevokedError."""
        if any(revoked_key(block.id) in self.found for block in grant.blocks):
            raise revoked(grant)

    def pay(self, grant: Grant, cost: Spent) -> None:
        """Raises GrantRevokedError or GrantSpentError."""
        self.check(grant)
        self._spent |= spend(grant, self._spent, cost)
        for block in grant.blocks:
            entry = self.found.get(spent_key(block.id))
            self._paid.add(block.id)
            self.conditions[spent_key(block.id)] = ABSENT if entry is None else entry.version
            self.conditions[revoked_key(block.id)] = ABSENT

    @property
    def writes(self) -> dict[str, bytes]:
        """What was spent, with all that was paid."""
        return {
            spent_key(block): encode({"spent": self._spent[block], "until": self._expires[block]})
            for block in self._paid
        }


def read_spent(entry: Entry | None) -> Spent:
    """What a record says was spent; nothing when there is none."""
    if entry is None:
        return Spent()
    value: dict[str, Any] = read(entry.value)
    return Spent(*value["spent"])
