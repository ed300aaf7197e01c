"""A user's access rules, groups and revocations, as they stand in his store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable

from coflows.access.rules import EVERYBODY, MAX_USERS, Access, Policy, check_group
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoints import find_endpoint, not_served, read
from coflows.errors import ConfigurationError, ConflictError, StoreError
from coflows.model.layout import (
    ACCESS,
    ACCESS_CHANGED,
    GROUPS,
    REVOKED,
    RULES,
    group_key,
    revoked_key,
    rule_key,
)
from coflows.model.names import check_endpoint, check_user_id
from coflows.store.base import ABSENT, Store

logger = logging.getLogger(__name__)


def rule_writes(endpoint: str, access: Access) -> dict[str, bytes]:
    """What a commit writes that gives an endpoint this rule."""
    return {rule_key(endpoint): encode(access.to_dict()), **changed()}


def changed() -> dict[str, bytes]:
    """What a commit writes besides that changes a rule, a group or a revocation: workers look at this key alone."""
    return {ACCESS_CHANGED: encode({"at": time.time()})}


def get_flow_access(cl: Client, flow_endpoint: str) -> Access:
    """Who may fetch an endpoint of this user's. Raises EndpointNotFoundError."""
    endpoint = find_endpoint(cl.store, check_endpoint(flow_endpoint))
    if endpoint is None:
        raise not_served(flow_endpoint, cl.user_id)
    return endpoint.access


def set_flow_access(cl: Client, flow_endpoint: str, access: object) -> Access:
    """Change who may fetch an endpoint and use what he fetched there without a grant: within 5 seconds whoever the rule
    does not let in is refused (AccessDeniedError), also where he has an instance. ``access`` is what ``serve_flow``
    takes. Raises EndpointNotFoundError, ConfigurationError or NameInvalidError."""
    get_flow_access(cl, flow_endpoint)
    rule = Access.of(access)
    if rule == EVERYBODY:
        cl.store.commit(changed(), deletes=[rule_key(flow_endpoint)])
    else:
        cl.store.commit(rule_writes(flow_endpoint, rule))
    return rule


# -- groups ----------------------------------------------------------------------------------------------------


def get_groups(cl: Client) -> dict[str, list[str]]:
    """The user's groups: names and members, in order."""
    return {entry.key.removeprefix(GROUPS): read(entry.value)["members"] for entry in cl.store.scan(GROUPS)}


def change_group(cl: Client, group: str, add: Iterable[str] = (), remove: Iterable[str] = ()) -> list[str]:
    """Add user ids to a group and take others out, making it if there is none; gives its members. Acts within 5
    seconds. Raises NameInvalidError, or ConfigurationError for too many."""
    key = group_key(check_group(group))
    new, gone = set(map(check_user_id, add)), set(map(check_user_id, remove))
    while True:
        entry = cl.store.get(key)
        members = sorted((set(read(entry.value)["members"] if entry else ()) | new) - gone)
        if len(members) > MAX_USERS:
            raise ConfigurationError(f"Group {group} would have {len(members)} members; at most {MAX_USERS} are taken.")
        try:
            version = ABSENT if entry is None else entry.version
            cl.store.commit({key: encode({"members": members}), **changed()}, conditions={key: version})
        except ConflictError:
            continue
        return members


def delete_group(cl: Client, group: str) -> bool:
    """Delete a group: rules that name it let nobody in. False when there is none."""
    key = group_key(check_group(group))
    if cl.store.get(key) is None:
        return False
    cl.store.commit(changed(), deletes=[key])
    return True


# -- for workers -----------------------------------------------------------------------------------------------


def read_policy(store: Store) -> Policy:
    """All of it, as it is now."""
    rules: dict[str, Access] = {}
    groups: dict[str, frozenset[str]] = {}
    revoked: set[str] = set()
    for entry in store.scan(ACCESS):
        if entry.key.startswith(RULES):
            rules[entry.key.removeprefix(RULES)] = Access.from_dict(read(entry.value))
        elif entry.key.startswith(GROUPS):
            groups[entry.key.removeprefix(GROUPS)] = frozenset(read(entry.value)["members"])
        elif entry.key.startswith(REVOKED):
            revoked.add(entry.key.removeprefix(revoked_key("")))
    return Policy(rules, groups, frozenset(revoked))


class PolicyInForce:
    """The policy that a worker decides by, not more than a tick behind the store's: looking at one key is all that it
    costs while nothing changes (a watch would have every commit log what it wrote). Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._version: int | None = None
        self._lock = threading.Lock()
        self.now = Policy()
        """The policy. Replaced as a whole, never changed."""
        self.refresh()

    def tick(self) -> None:
        """To be called about once a second."""
        try:
            self.refresh()
        except StoreError as error:
            logger.warning("Could not see whether access rules have changed; looking again: %s", error)

    def refresh(self) -> None:
        """Take in what has changed until now. Raises StoreError."""
        with self._lock:
            entry = self._store.get(ACCESS_CHANGED)
            version = ABSENT if entry is None else entry.version
            if version != self._version:
                self.now = read_policy(self._store) if entry is not None else Policy()
                self._version = version
