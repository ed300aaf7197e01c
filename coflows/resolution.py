"""Decides, without I/O, what fetching an instance takes: cycle and depth checks, ids, and which user gives what."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coflows.errors import CallChainError, FlowCycleError, FlowInstanceError
from coflows.flows.config import SubflowSpec
from coflows.model.flow_names import REGISTRY
from coflows.model.layout import released_key
from coflows.model.names import LOCAL
from coflows.model.wire import MAX_DEPTH, MAX_FAN_OUT, ChainLink, FetchItem

DEADLINE_SHARE = 0.9
"""Part of the remaining time that a hop gives the next one, so that the inner error arrives before the outer."""
LONGEST_FETCH = 300.0
"""Seconds that a user may have another one look for what he asks for, whatever deadline he names."""


@dataclass(frozen=True, slots=True)
class MountRequest:
    """One instance to mount here. ``client`` is the user id of who asks, or "local"; ``chain`` the path that led
    here, from the root; ``deadline`` in seconds since the epoch. The same ``request_id`` mounts the same instance."""

    endpoint: str
    client: str
    request_id: str
    deadline: float
    config_overrides: dict[str, Any] = field(default_factory=dict)
    initial_state: dict[str, Any] | None = None
    dispatch_point_override: str | None = None
    chain: tuple[ChainLink, ...] = ()
    withdrawal: str | None = None
    """The key that marks the request as taken back."""
    steps: tuple[str, ...] = ()
    """The links from what was asked for first, as errors name them."""
    keep_by: float | None = None
    """When, in seconds since the epoch, what is mounted for the request has been kept, or is released; None: it is kept
    from the beginning."""
    grant: str | None = None
    """The token that ``client`` presents."""
    root: str | None = None
    """Who began the fetch, as ``client`` vouches; None: himself."""

    @property
    def caller(self) -> str | None:
        """Who begins the fetch, for those who are asked for subflows; None: this user."""
        return self.root or (None if self.client == LOCAL else self.client)

    @property
    def flow_id(self) -> str:
        """The id of the instance that this request mounts."""
        return flow_id_of(self.request_id, self.client, self.endpoint)

    @property
    def withdrawals(self) -> tuple[str, ...]:
        """The keys that say that it is not to be mounted: it was taken back, or what it had mounted was deleted."""
        if self.withdrawal is None:
            return ()
        return self.withdrawal, released_key(self.client, self.flow_id)


@dataclass(frozen=True, slots=True)
class Plan:
    """The subflows to mount here, and those to fetch from each other user."""

    local: Mapping[str, SubflowSpec]
    remote: Mapping[str, Mapping[str, SubflowSpec]]


def derive_id(request_id: str, *parts: str) -> str:
    """The request id of a part of a request: the same each time it is made again (BLAKE2b, 128 bits)."""
    text = "\0".join((request_id, *parts))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def flow_id_of(request_id: str, client: str, endpoint: str) -> str:
    """The instance id that a request gives; different for each client, so nobody can pick another's id."""
    digits = derive_id(request_id, client, endpoint)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def extend_chain(chain: Sequence[ChainLink], user_id: str, endpoint: str) -> tuple[ChainLink, ...]:
    """The chain with this flow at its end. Raises FlowCycleError when it is in it already, FlowInstanceError when
    the chain is too long."""
    link = ChainLink(user_id=user_id, flow_endpoint=endpoint)
    longer = (*chain, link)
    if link in chain:
        raise FlowCycleError(
            f"The flow contains itself: {' -> '.join(_shown(one) for one in longer[chain.index(link) :])}.",
            hint="Point one of these subflows at another endpoint.",
        )
    if len(longer) > MAX_DEPTH:
        raise FlowInstanceError(
            f"The tree of subflows is deeper than {MAX_DEPTH}: {_shown(longer[0])} -> ... -> {_shown(link)}.",
            hint="Flatten it, or let a flow fetch its subflow when it needs it.",
        )
    return longer


def check_vouched(chain: Sequence[ChainLink], root: str | None, sender: str) -> None:
    """The path of a fetch ends at its sender; without one he is its root. Raises CallChainError."""
    if (chain[-1].user_id if chain else root or sender) != sender:
        shown = " -> ".join((f"user {(root or sender)[:8]}", *map(_shown, chain)))
        raise CallChainError(f"User {sender[:8]} cannot vouch for this chain: {shown}.", hint="Its last link is he.")


def plan(specs: Mapping[str, SubflowSpec], user_id: str) -> Plan:
    """Group the subflows of a flow of ``user_id`` by the user who gives them; raises FlowInstanceError when there
    are too many."""
    if len(specs) > MAX_FAN_OUT:
        raise FlowInstanceError(f"The flow has {len(specs)} subflows; at most {MAX_FAN_OUT} are allowed.")
    local: dict[str, SubflowSpec] = {}
    remote: dict[str, dict[str, SubflowSpec]] = {}
    for key, spec in specs.items():
        if spec.user_id in (LOCAL, user_id):
            local[key] = spec
        else:
            remote.setdefault(spec.user_id, {})[key] = spec
    return Plan(local, remote)


def local_request(
    parent: MountRequest, key: str, spec: SubflowSpec, chain: tuple[ChainLink, ...], deadline: float
) -> MountRequest:
    """The request for a subflow of the same user; its id is its parent's to give."""
    return MountRequest(
        endpoint=spec.flow_endpoint,
        client=LOCAL,
        request_id=derive_id(parent.request_id, key),
        deadline=deadline,
        config_overrides=spec.config_overrides,
        chain=chain,
        steps=(*parent.steps, describe(key, spec.flow_endpoint, LOCAL)),
        keep_by=parent.keep_by,
        root=parent.caller,
    )


def fetch_items(specs: Mapping[str, SubflowSpec]) -> list[FetchItem]:
    """What to ask another user for."""
    return [
        FetchItem(key=key, flow_endpoint=spec.flow_endpoint, config_overrides=spec.config_overrides)
        for key, spec in specs.items()
    ]


def next_deadline(deadline: float, now: float) -> float:
    """The deadline for the next hop: a share of what is left."""
    return now + max(deadline - now, 0.0) * DEADLINE_SHARE


def patience(deadline: float, now: float) -> float:
    """Until when a request of another user is worked on, which keeps a thread meanwhile: no longer than he may ask
    for."""
    return min(deadline, now + LONGEST_FETCH)


def describe(key: str, endpoint: str, user_id: str) -> str:
    """A subflow as a link of an error's chain."""
    where = {LOCAL: "this user", REGISTRY: "whom the registries name"}.get(user_id, f"user {user_id}")
    return f"subflow {key!r} ({endpoint} at {where})"


def _shown(link: ChainLink) -> str:
    return f"{link.flow_endpoint}@{link.user_id[:8]}"
