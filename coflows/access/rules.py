"""Access rules of endpoints, and what a user's rules, groups and revocations say together."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from coflows.access.grants import Grant
from coflows.errors import ConfigurationError, GrantRevokedError, NameInvalidError
from coflows.model.names import check_user_id

_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,63}\Z")
MAX_USERS = 10_000
"""Users in a rule or a group."""


def check_group(value: object) -> str:
    """Return ``value`` when it can name a group, else raise NameInvalidError."""
    if isinstance(value, str) and _GROUP.match(value):
        return value
    raise NameInvalidError(
        f"Group {str(value)[:80]!r} is not valid.", hint="Expected 1 to 64 letters, digits, '_', '-'."
    )


class Mode(StrEnum):
    """Who may fetch an endpoint without a grant; with one of the owner's, its holder may always."""

    EVERYBODY = "everybody"
    """Everybody who can reach the broker."""
    USERS = "users"
    """Those listed."""
    GROUP = "group"
    """The members of a group of the owner's, as it is at the time."""
    GRANT = "grant"
    """Nobody."""


@dataclass(frozen=True, slots=True)
class Access:
    """An endpoint's rule. With ``roots`` the user who began the chain of calls must be let in too, as the caller
    vouches, and not only the caller. The owner himself is always let in."""

    mode: Mode = Mode.EVERYBODY
    users: frozenset[str] = frozenset()
    group: str | None = None
    roots: bool = False

    @classmethod
    def of(cls, value: object) -> Access:
        """The rule that stands for ``value``: one itself, "everybody", "grant", "group:NAME", or a list of user ids.
        Raises ConfigurationError or NameInvalidError."""
        if isinstance(value, Access):
            return value
        if isinstance(value, str):
            mode, _, name = value.partition(":")
            if mode == Mode.GROUP and name:
                return cls(Mode.GROUP, group=check_group(name))
            if value in (Mode.EVERYBODY, Mode.GRANT):
                return cls(Mode(value))
        elif isinstance(value, Collection) and not isinstance(value, bytes | Mapping) and len(value) <= MAX_USERS:
            return cls(Mode.USERS, frozenset(map(check_user_id, value)))
        raise ConfigurationError(
            f"{str(value)[:80]!r} is no access rule.",
            hint=f'Expected "everybody", "grant", "group:NAME", or a list of at most {MAX_USERS} user ids.',
        )

    def admits(self, user_id: str, groups: Mapping[str, Collection[str]]) -> bool:
        """Whether the rule lets this user in, given the owner's groups."""
        if self.mode is Mode.USERS:
            return user_id in self.users
        if self.mode is Mode.GROUP:
            return user_id in groups.get(self.group or "", ())
        return self.mode is Mode.EVERYBODY

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict; ``from_dict`` reads it back."""
        return {"mode": str(self.mode), "users": sorted(self.users), "group": self.group, "roots": self.roots}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Access:
        """Read a record of the user's own store."""
        return cls(Mode(value["mode"]), frozenset(value["users"]), value["group"], value["roots"])

    def __str__(self) -> str:
        users = f"{len(self.users)} user{'' if len(self.users) == 1 else 's'}"
        who = {Mode.USERS: users, Mode.GROUP: f"group:{self.group}"}.get(self.mode, str(self.mode))
        return f"{who}, root callers too" if self.roots else who


EVERYBODY = Access()


@dataclass(frozen=True, slots=True)
class Policy:
    """All of a user's rules by endpoint (those for everybody are left out), his groups, and the ids of the blocks of
    grants that he took back."""

    rules: Mapping[str, Access] = field(default_factory=dict)
    groups: Mapping[str, Collection[str]] = field(default_factory=dict)
    revoked: Collection[str] = frozenset()

    def admits(self, endpoint: str, caller: str, root: str | None = None) -> bool:
        """Whether ``caller`` may use what was fetched at an endpoint without a grant, for ``root`` (None: himself)."""
        rule = self.rules.get(endpoint)
        if rule is None:
            return True
        return rule.admits(caller, self.groups) and (
            not rule.roots or root is None or root == caller or rule.admits(root, self.groups)
        )

    def check_not_revoked(self, grant: Grant) -> None:
        """Raise GrantRevokedError when the owner took it back, or one that it was made from."""
        if any(block.id in self.revoked for block in grant.blocks):
            raise revoked(grant)


def revoked(grant: Grant) -> GrantRevokedError:
    """The error for a grant that was taken back."""
    return GrantRevokedError(f"The grant for {grant.endpoint!r} was taken back by its owner.", hint="Ask him why.")
