"""Lets another user's requests in, or not: by the rule of the endpoint, or by a grant that pays for the instance."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from coflows.access.budget import INSTANCE
from coflows.access.grants import Grant, check_grant
from coflows.access.rules import Access, Policy
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoints import Endpoint, read
from coflows.errors import AccessDeniedError
from coflows.granting import Account
from coflows.model.layout import granted_key, group_key
from coflows.model.names import LOCAL
from coflows.resolution import MountRequest
from coflows.store.base import ABSENT


def access_denied(endpoint: str, owner: str) -> AccessDeniedError:
    """The error for who is not let in."""
    return AccessDeniedError(
        f"User {owner} does not let you use {endpoint!r}.", hint="Ask him for a grant, or to let you in."
    )


class Admission:
    """Of the requests of one attempt to mount: ``writes`` and ``conditions`` go into the commit that mounts, so that
    nobody is let in by what was changed meanwhile, and what is mounted is paid for once. For one thread."""

    def __init__(self, cl: Client, requests: Sequence[MountRequest]) -> None:
        """Raises GrantError for a token that is none."""
        self._cl = cl
        self._now = time.time()
        self._grants: dict[str, Grant] = {}
        for one in requests:
            if one.grant is not None:
                owner, endpoint, caller = cl.user_id, one.endpoint, one.client
                self._grants[one.grant] = check_grant(
                    one.grant, owner=owner, endpoint=endpoint, caller=caller, now=self._now
                )
        self._account = Account(cl.store, self._grants.values()) if self._grants else None
        self._conditions: dict[str, int] = {}
        self._writes: dict[str, bytes] = {}
        self._groups: dict[str, Sequence[str]] = {}

    @property
    def conditions(self) -> dict[str, int]:
        """What the decision rests on."""
        return self._conditions | (self._account.conditions if self._account else {})

    @property
    def writes(self) -> dict[str, bytes]:
        """What was spent, and who holds a singleton by which grant."""
        return self._writes | (self._account.writes if self._account else {})

    def check(self, request: MountRequest, endpoint: Endpoint) -> None:
        """Raise AccessDeniedError, GrantExpiredError or GrantRevokedError unless the request is let in."""
        if request.client in (LOCAL, self._cl.user_id):
            return
        if request.grant is not None and self._account is not None:
            self._account.check(self._grants[request.grant])
            return
        rule = endpoint.access
        policy = Policy({endpoint.name: rule}, self._members(rule))
        if not policy.admits(endpoint.name, request.client, request.root):
            raise access_denied(endpoint.name, self._cl.user_id)

    def mount(self, request: MountRequest, flow_id: str, singleton: bool) -> None:
        """An instance is to be mounted for the request. Raises GrantSpentError."""
        if request.grant is None or self._account is None:
            return
        self._account.pay(self._grants[request.grant], INSTANCE)
        if singleton:
            self._hold(request, flow_id)

    def hold(self, request: MountRequest, flow_id: str) -> None:
        """The singleton that is there is given to the request: paid for once. Raises GrantSpentError."""
        if request.grant is None or self._account is None:
            return
        entry = self._cl.store.get(granted_key(flow_id, request.client))
        if entry is None or read(entry.value)["grant"] != request.grant:
            self._account.pay(self._grants[request.grant], INSTANCE)
            self._hold(request, flow_id)

    def _hold(self, request: MountRequest, flow_id: str) -> None:
        """Twice at once is once: both pay, and the commit of one of them is refused over what was spent."""
        assert request.grant is not None
        key, until = granted_key(flow_id, request.client), self._grants[request.grant].expires
        self._writes[key] = encode({"grant": request.grant, "until": until})

    def _members(self, rule: Access) -> Mapping[str, Sequence[str]]:
        if rule.group is not None and rule.group not in self._groups:
            key = group_key(rule.group)
            entry = self._cl.store.get(key)
            self._groups[rule.group] = [] if entry is None else read(entry.value)["members"]
            self._conditions[key] = ABSENT if entry is None else entry.version
        return self._groups
