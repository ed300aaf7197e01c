"""Mounts an instance of a served flow, after fetching its subflows from whoever serves them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coflows.broker.topology import door_queue
from coflows.client import Client
from coflows.codec.state import encode_state
from coflows.codec.wire import encode
from coflows.endpoints import Endpoint, ensure_point, get_endpoint, partitions_of, read
from coflows.errors import (
    CallTimeoutError,
    CoflowsError,
    ConflictError,
    FlowConfigError,
    FlowInstanceError,
    InstanceNotFoundError,
    UnknownUserError,
)
from coflows.flows.config import SubflowSpec, check_overrides, differing_keys, subflow_specs
from coflows.flows.loading import resolve_flow_class
from coflows.model.address import InstanceAddress, partition_of
from coflows.model.failure import Failure
from coflows.model.layout import MountPath, metadata_key, mounts_prefix, parse_mount_key, serve_key
from coflows.model.names import LOCAL
from coflows.model.wire import MAX_TREE, ChainLink, Fetch, FetchItem, as_mapping
from coflows.releasing import ask_release, release_tree
from coflows.resolution import (
    MountRequest,
    derive_id,
    describe,
    extend_chain,
    fetch_items,
    flow_id_of,
    next_deadline,
    plan,
)
from coflows.store.base import ABSENT, Entry
from coflows.waiting import PendingReply

MAX_TRIES = 100


@dataclass(frozen=True, slots=True)
class Mounted:
    """An instance that is there: its address, how many instances its tree holds, and what the caller should know."""

    address: InstanceAddress
    count: int = 1
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict; ``from_dict`` reads it back."""
        return {"address": self.address.to_dict(), "count": self.count, "warnings": list(self.warnings)}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], owner: str, endpoint: str) -> Mounted:
        """Check what ``owner`` answered; raises SerializationError, or FlowInstanceError for another's address."""
        address = InstanceAddress.from_dict(as_mapping(value.get("address")))
        if (address.user_id, address.flow_endpoint) != (owner, endpoint):
            raise FlowInstanceError(f"User {owner} answered with an instance of somebody else.")
        warnings = value.get("warnings")
        texts = tuple(str(text)[:500] for text in warnings[:20]) if isinstance(warnings, list) else ()
        return cls(address, max(1, int(value.get("count") or 1)), texts)


@dataclass(slots=True)
class _Subtree:
    """What was fetched for one flow so far."""

    instances: dict[str, Mounted] = field(default_factory=dict)
    sent: list[tuple[str, str, list[FetchItem], PendingReply]] = field(default_factory=list)


class Mounter:
    """Mounts on behalf of one user. Thread-safe; blocks while other users answer."""

    def __init__(self, cl: Client, base_paths: Sequence[Path] = ()) -> None:
        self._cl = cl
        self._base_paths = tuple(base_paths) or tuple(cl.settings.flow_modules)

    def mount(self, request: MountRequest) -> Mounted:
        """Mount, or find the instance that this request (or, of a singleton, anybody's) mounted before.

        Raises EndpointNotFoundError, FlowClassError, FlowConfigError, FlowCycleError, FlowInstanceError (names the
        chain of subflows), InstanceNotFoundError when the request was taken back meanwhile. After an error nothing
        of the tree stays mounted.
        """
        chain = extend_chain(request.chain, self._cl.user_id, request.endpoint)
        for attempt in range(MAX_TRIES):
            endpoint = get_endpoint(self._cl.store, request.endpoint, self._cl.user_id)
            found = self._find(request, endpoint)
            if found is not None:
                return found
            mounted = self._try(request, endpoint, chain, attempt)
            if mounted is not None:
                return mounted
        raise FlowInstanceError(f"Endpoint {request.endpoint!r} kept changing while it was mounted.", hint="Try again.")

    def fetch(self, user_id: str, request_id: str, item: FetchItem, deadline: float) -> Mounted:
        """Fetch one instance from another user. Raises what his mount raised, UnknownUserError, or CallTimeoutError
        when he does not answer by the deadline; then it is taken back."""
        reply = self._ask(user_id, request_id, [item], (), deadline)
        try:
            return self._answer(user_id, [item], reply, deadline)[item.key]
        except BaseException:
            self._withdraw(user_id, request_id, [item])
            raise

    # -- one attempt -------------------------------------------------------------------------------------------

    def _try(
        self, request: MountRequest, endpoint: Endpoint, chain: tuple[ChainLink, ...], attempt: int
    ) -> Mounted | None:
        """Mount once; None when something changed meanwhile and it is to be decided anew."""
        flow_class = resolve_flow_class(endpoint.flow_class_name, self._base_paths)
        config = flow_class.get_config(**request.config_overrides)
        check_overrides(request.config_overrides, config.get("private_keys") or ())
        address = self._address(request, endpoint)
        subtree = self._fetch_subflows(request, subflow_specs(config), chain, str(attempt))
        try:
            self._commit(request, endpoint, address, subtree)
        except ConflictError as error:
            twin = not endpoint.singleton and metadata_key(address.flow_id) in error.keys
            if twin:  # The same request was worked off twice at once, and its subflows are the same ones.
                return None
            self._take_back(subtree)
            if request.withdrawal in error.keys:
                raise InstanceNotFoundError("The request was taken back by who made it.") from error
            return None
        return Mounted(address, 1 + _count(subtree), _warnings(subtree))

    def _address(self, request: MountRequest, endpoint: Endpoint) -> InstanceAddress:
        point = request.dispatch_point_override or endpoint.dispatch_point
        if request.client == LOCAL:
            partitions = ensure_point(self._cl, point)
        else:
            known = partitions_of(self._cl.store, point)
            if known is None:
                raise FlowConfigError(
                    f"User {self._cl.user_id} has no dispatch point {point!r}.",
                    hint="Leave dispatch_point_override out, or ask the owner which points he has.",
                )
            partitions = known
        partition = None if endpoint.parallel else partition_of(request.flow_id, partitions)
        return InstanceAddress(self._cl.user_id, endpoint.name, request.flow_id, point, partition)

    def _commit(self, request: MountRequest, endpoint: Endpoint, address: InstanceAddress, subtree: _Subtree) -> None:
        path = MountPath(endpoint.name, request.client, address.flow_id)
        init = {
            "created_at": time.time(),
            "address": address.to_dict(),
            "subflows": {key: mounted.address.to_dict() for key, mounted in subtree.instances.items()},
        }
        writes = {
            path.key("init"): encode(init),
            path.key("config_overrides"): encode(request.config_overrides),
            metadata_key(address.flow_id): encode({"flow_endpoint": endpoint.name, "user_id": request.client}),
        }
        if request.initial_state is not None:
            writes[path.key("state")] = encode_state(request.initial_state)
        if request.dispatch_point_override is not None:
            writes[path.key("dispatch_point_override")] = encode(request.dispatch_point_override)
        conditions = {**endpoint.versions, metadata_key(address.flow_id): ABSENT}
        if request.withdrawal is not None:
            conditions[request.withdrawal] = ABSENT
        if endpoint.singleton:
            # Written anew with the same value: its new version makes whoever mounts at the same time decide again.
            writes[serve_key(endpoint.name, "singleton")] = encode(True)
        self._cl.store.commit(writes, conditions=conditions)

    # -- what is there already ---------------------------------------------------------------------------------

    def _find(self, request: MountRequest, endpoint: Endpoint) -> Mounted | None:
        if endpoint.singleton:
            return self._find_singleton(request, endpoint)
        path = MountPath(endpoint.name, request.client, request.flow_id)
        entry = self._cl.store.get(path.key("init"))
        return None if entry is None else _from_init(entry)

    def _find_singleton(self, request: MountRequest, endpoint: Endpoint) -> Mounted | None:
        for key in self._cl.store.keys(mounts_prefix(endpoint.name), limit=1):
            parsed = parse_mount_key(key)
            assert parsed is not None
            path, _ = parsed
            init, overrides = self._cl.store.get(path.key("init")), self._cl.store.get(path.key("config_overrides"))
            if init is None or overrides is None:
                return None
            flow_class = resolve_flow_class(endpoint.flow_class_name, self._base_paths)
            config = flow_class.get_config(**read(overrides.value))
            ignored = differing_keys(config, request.config_overrides)
            warning = (
                f"{endpoint.name} is a singleton that was mounted before with another config; ignored: "
                f"{', '.join(ignored)}."
            )
            return Mounted(_from_init(init).address, 1, (warning,) if ignored else ())
        return None

    # -- subflows ----------------------------------------------------------------------------------------------

    def _fetch_subflows(
        self,
        request: MountRequest,
        specs: Mapping[str, SubflowSpec],
        chain: tuple[ChainLink, ...],
        attempt: str,
    ) -> _Subtree:
        """All subflows, those of other users at the same time; all or, after an error, none. An ``attempt`` that was
        taken back cannot be asked for again, so each has ids of its own."""
        subtree = _Subtree()
        todo = plan(specs, self._cl.user_id)
        deadline = next_deadline(request.deadline, time.time())
        try:
            for user_id, wanted in todo.remote.items():
                items = fetch_items(wanted)
                request_id = derive_id(request.request_id, attempt, user_id)
                with _step(items[0].key, items[0].flow_endpoint, user_id):
                    reply = self._ask(user_id, request_id, items, chain, deadline)
                subtree.sent.append((user_id, request_id, items, reply))
            for key, spec in todo.local.items():
                with _step(key, spec.flow_endpoint, LOCAL):
                    subtree.instances[key] = self.mount(_local_request(request, attempt, key, spec, chain, deadline))
            for user_id, _, items, reply in subtree.sent:
                with _step(items[0].key, items[0].flow_endpoint, user_id):
                    subtree.instances |= self._answer(user_id, items, reply, request.deadline)
            if 1 + _count(subtree) > MAX_TREE:
                raise FlowInstanceError(f"The tree of {request.endpoint} has more than {MAX_TREE} instances.")
        except BaseException:
            self._take_back(subtree)
            raise
        return subtree

    def _ask(
        self,
        user_id: str,
        request_id: str,
        items: list[FetchItem],
        chain: tuple[ChainLink, ...],
        deadline: float,
    ) -> PendingReply:
        fetch = Fetch(
            request_id=request_id,
            session=self._cl.session.id,
            items=items,
            chain=list(chain),
            deadline=deadline,
        )
        unknown = UnknownUserError(
            f"There is no user {user_id} on this broker ({self._cl.broker.url}).",
            hint="Compare with `coflows user show`; he must have connected to this broker once.",
        )
        return self._cl.session.request(door_queue(user_id).name, user_id, request_id, fetch, unroutable=unknown)

    def _answer(self, user_id: str, items: list[FetchItem], reply: PendingReply, deadline: float) -> dict[str, Mounted]:
        try:
            answer = reply.result(max(deadline - time.time(), 0.0))
        except TimeoutError as error:
            raise CallTimeoutError(
                f"User {user_id} did not answer in time.",
                hint="Is a get_instance worker of his running? It can be asked again at any time.",
            ) from error
        if answer.failure is not None:
            raise Failure.from_dict(answer.failure).to_error(f"User {user_id}")
        instances = as_mapping(as_mapping(answer.value).get("instances"))
        return {
            item.key: Mounted.from_dict(as_mapping(instances.get(item.key)), user_id, item.flow_endpoint)
            for item in items
        }

    # -- taking back -------------------------------------------------------------------------------------------

    def _take_back(self, subtree: _Subtree) -> None:
        for user_id, request_id, items, _ in subtree.sent:
            self._withdraw(user_id, request_id, items)
        asked = {item.key for _, _, items, _ in subtree.sent for item in items}
        for key, mounted in subtree.instances.items():
            if key not in asked:
                release_tree(self._cl, mounted.address.flow_id, LOCAL)

    def _withdraw(self, user_id: str, request_id: str, items: list[FetchItem]) -> None:
        """Tell the owner that nobody wants these; what he mounts for the request later is refused."""
        ids = [flow_id_of(derive_id(request_id, item.key), self._cl.user_id, item.flow_endpoint) for item in items]
        ask_release(self._cl, user_id, ids, withdrawn=request_id)


class _step:
    """Names the subflow in an error that passes through."""

    def __init__(self, key: str, endpoint: str, user_id: str) -> None:
        self._text = describe(key, endpoint, user_id)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, CoflowsError):
            raise Failure.of(error).within(self._text) from error


def _local_request(
    request: MountRequest, attempt: str, key: str, spec: SubflowSpec, chain: tuple[ChainLink, ...], deadline: float
) -> MountRequest:
    return MountRequest(
        endpoint=spec.flow_endpoint,
        client=LOCAL,
        request_id=derive_id(request.request_id, attempt, key),
        deadline=deadline,
        config_overrides=spec.config_overrides,
        chain=chain,
    )


def _from_init(entry: Entry) -> Mounted:
    return Mounted(InstanceAddress.from_dict(read(entry.value)["address"]))


def _count(subtree: _Subtree) -> int:
    return sum(mounted.count for mounted in subtree.instances.values())


def _warnings(subtree: _Subtree) -> tuple[str, ...]:
    return tuple(f"subflow {key!r}: {text}" for key, mounted in subtree.instances.items() for text in mounted.warnings)
