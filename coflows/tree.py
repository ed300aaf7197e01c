"""The instances that a request mounts here: looked up level by level, and written in one commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from coflows.admitting import Admission
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoints import Endpoint, find_endpoints, not_served, open_point, partitions_of, read
from coflows.errors import CoflowsError, FlowConfigError, FlowInstanceError
from coflows.flows import Flow
from coflows.flows.config import SubflowSpec, differing_keys, load_class_config, subflow_specs
from coflows.flows.loading import FlowClasses
from coflows.flows.models import config_fields
from coflows.flows.overrides import check_overridable, check_overrides, not_overridable
from coflows.keeping import Probation
from coflows.model.address import InstanceAddress, partition_of
from coflows.model.failure import Failure
from coflows.model.flow_names import REGISTRY, FlowName
from coflows.model.layout import (
    MountPath,
    keeping_key,
    metadata_key,
    mounts_prefix,
    parse_mount_key,
    serve_key,
)
from coflows.model.names import LOCAL
from coflows.model.wire import MAX_TREE
from coflows.registry.choosing import Candidate
from coflows.resolution import MountRequest, describe, extend_chain, local_request, next_deadline, plan
from coflows.store.base import ABSENT, Entry
from coflows.tree_node import Mounted, Node, on_probation
from coflows.usage import Amount, in_steps


class _Wanted(NamedTuple):
    """An instance that was asked for, and where it goes once it is found or decided to be mounted."""

    request: MountRequest
    into: dict[str, Node | Mounted]
    key: str


class _Config(NamedTuple):
    private_keys: Sequence[str]
    values: Mapping[str, Any]
    specs: Mapping[str, SubflowSpec]


class Tree:
    """One attempt: what is mounted here, over all levels of subflows that are this user's. Only ``commit`` writes.
    ``roots`` are what was asked for, in that order; ``find`` finds whose the subflows are that registries tell.
    For one thread."""

    def __init__(
        self, cl: Client, classes: FlowClasses, find: Callable[[FlowName], Candidate], requests: Sequence[MountRequest]
    ) -> None:
        """Raises EndpointNotFoundError, FlowClassError, FlowConfigError, FlowCycleError or FlowInstanceError."""
        self.nodes: list[Node] = []
        self._cl = cl
        self._classes = classes
        self._find = find
        self._endpoints: dict[str, Endpoint] = {}
        self._configs: dict[tuple[str, bytes], _Config] = {}
        self._class_configs: dict[str, tuple[Mapping[str, Any], type[Flow]]] = {}
        self._partitions: dict[str, int] = {}
        self._admission = Admission(cl, requests)
        self._singletons: dict[str, Node] = {}
        self._before = cl.store.get_many(_init_key(one) for one in requests)
        roots: dict[str, Node | Mounted] = {}
        self._grow([_Wanted(request, roots, str(number)) for number, request in enumerate(requests)])
        self.roots = list(roots.values())

    @property
    def version(self) -> str:
        """The same for every attempt that saw the same endpoints, rules and budgets, and never the same again once one
        has changed."""
        versions = [version for one in self._endpoints.values() for version in one.versions.values()]
        return str(max((*versions, *self._admission.conditions.values()), default=0))

    def mounted(self) -> list[Mounted]:
        """What was asked for, as it is once all is there. Raises FlowInstanceError when that is too much."""
        found = [one.mounted() if isinstance(one, Node) else one for one in self.roots]
        self._check_size(sum(one.count for one in found))
        return found

    def commit(self) -> None:
        """Mount all of it, or nothing: ConflictError when an endpoint has changed, a request was taken back, or what it
        asks for is mounted already."""
        writes: dict[str, bytes] = {}
        conditions: dict[str, int] = {}
        for node in self.nodes:
            conditions |= node.endpoint.versions
            conditions[metadata_key(node.address.flow_id)] = ABSENT
            conditions |= dict.fromkeys(node.request.withdrawals, ABSENT)
            writes |= node.writes()
        records = self.probations()
        writes |= {keeping_key(flow_id): one.encode() for flow_id, one in records.items()}
        writes |= self._admission.writes
        if writes:
            conditions |= self._admission.conditions
            self._cl.store.commit(writes, conditions=conditions)

    def usage(self) -> dict[str, list[Amount]]:
        """What ``commit`` adds to what is kept for other users, by user."""
        found: dict[str, list[Amount]] = {}
        for node in self.nodes:
            if (user_id := node.for_user) is not None:
                base, state = node.sizes()
                found.setdefault(user_id, []).append(Amount(node.endpoint.name, 1, base + in_steps(state)))
        return found

    def probations(self) -> dict[str, Probation]:
        """What is still to be done, by instance, once it is mounted: of what was asked for, and of singletons, which
        belong to their endpoint and are kept from the beginning."""
        found: dict[str, Probation] = {}
        for node in self.nodes:
            if node.endpoint.singleton or any(node is root for root in self.roots):
                request = node.request
                until = request.keep_by if on_probation(request, node.endpoint) else None
                remote = node.to_keep(self._cl.user_id)
                if until is not None or remote:
                    found[node.address.flow_id] = Probation(request.client, until, remote, told_by=request.keep_by)
        return found

    def is_twin(self, changed: Sequence[str]) -> bool:
        """Whether a conflict over these keys means that the same requests were worked off twice at once."""
        return not {metadata_key(node.address.flow_id) for node in self.nodes}.isdisjoint(changed)

    # -- one level after the other -----------------------------------------------------------------------------

    def _grow(self, level: list[_Wanted]) -> None:
        while level:
            unknown = {one.request.endpoint for one in level} - self._endpoints.keys()
            self._endpoints |= find_endpoints(self._cl.store, unknown)
            below: list[_Wanted] = []
            for wanted in level:
                with named(wanted.request.steps):
                    found = self._found(wanted.request)
                    wanted.into[wanted.key] = found
                    if isinstance(found, Node):
                        below += self._children(found)
                        self._check_size(len(self.nodes) + len(below))
            level = below

    def _found(self, request: MountRequest) -> Node | Mounted:
        chain = extend_chain(request.chain, self._cl.user_id, request.endpoint)
        endpoint = self._endpoints.get(request.endpoint)
        if endpoint is None or not endpoint.served:
            raise not_served(request.endpoint, self._cl.user_id)
        self._admission.check(request, endpoint)
        if endpoint.singleton:
            there = self._find_singleton(request, endpoint)
            if there is not None:
                self._admission.hold(request, there.address.flow_id)
                return there
        elif self._before:  # Otherwise nothing of it was asked for before.
            entry = self._before.get(_init_key(request))
            if entry is not None:
                return Mounted(_address_in(entry), probation=on_probation(request, endpoint))
        config = self._config(endpoint, request.config_overrides)
        if config.private_keys:
            check_overrides(request.config_overrides, config.private_keys)
        self._check_overridable(request, endpoint)
        todo = plan(self._looked_up(config.specs), self._cl.user_id)
        node = Node(request, endpoint, self._address(request, endpoint), chain, todo)
        self.nodes.append(node)
        self._admission.mount(request, node.address.flow_id, endpoint.singleton)
        if endpoint.singleton:
            self._singletons[endpoint.name] = node
        return node

    def _check_overridable(self, request: MountRequest, endpoint: Endpoint) -> None:
        if request.config_overrides and self._is_foreign(request):
            defaults, flow_class = self._defaults(endpoint)
            check_overridable(defaults, request.config_overrides, flow_class.__name__, config_fields(flow_class))

    def _is_foreign(self, request: MountRequest) -> bool:
        return request.client not in (LOCAL, self._cl.user_id)

    def _looked_up(self, specs: Mapping[str, SubflowSpec]) -> Mapping[str, SubflowSpec]:
        """The specs with a user in each; this asks registries only when one of them leaves that to them."""
        found = dict(specs)
        for key, spec in specs.items():
            if spec.user_id == REGISTRY:
                with named((describe(key, spec.flow_endpoint, REGISTRY),)):
                    chosen = self._find(FlowName.parse(spec.flow_endpoint))
                found[key] = replace(spec, user_id=chosen.user_id, flow_endpoint=chosen.endpoint)
        return found

    def _children(self, node: Node) -> list[_Wanted]:
        deadline = next_deadline(node.request.deadline, time.time())
        # A singleton stays for all, and so does what belongs to it.
        request = replace(node.request, for_user=None) if node.endpoint.singleton else node.request
        return [
            _Wanted(local_request(request, key, spec, node.chain, deadline), node.subflows, key)
            for key, spec in node.plan.local.items()
        ]

    def _find_singleton(self, request: MountRequest, endpoint: Endpoint) -> Mounted | None:
        """The one that is there, or that a sibling of the request mounts."""
        sibling = self._singletons.get(endpoint.name)
        if sibling is not None:
            return self._sharing(sibling.address, sibling.request.config_overrides, request, endpoint)
        for key in self._cl.store.keys(mounts_prefix(endpoint.name), limit=1):
            parsed = parse_mount_key(key)
            assert parsed is not None
            init, overrides = parsed[0].key("init"), parsed[0].key("config_overrides")
            found = self._cl.store.get_many([init, overrides])
            if len(found) == 2:
                return self._sharing(_address_in(found[init]), read(found[overrides].value), request, endpoint)
        return None

    def _sharing(
        self, address: InstanceAddress, overrides: Mapping[str, Any], request: MountRequest, endpoint: Endpoint
    ) -> Mounted:
        if not request.config_overrides:
            return Mounted(address)
        ignored = differing_keys(self._config(endpoint, overrides).values, request.config_overrides)
        if self._is_foreign(request):  # What differs of the rest would tell him what the owner's values are.
            defaults, flow_class = self._defaults(endpoint)
            ignored += not_overridable(defaults, request.config_overrides, config_fields(flow_class))
            ignored = sorted(set(ignored))
        warning = (
            f"{endpoint.name} is a singleton that was mounted before with another config; ignored: "
            f"{', '.join(ignored)}."
        )
        return Mounted(address, 1, (warning,) if ignored else ())

    def _config(self, endpoint: Endpoint, overrides: Mapping[str, Any]) -> _Config:
        """Read once for all instances with the same overrides."""
        key = endpoint.name, encode(overrides)
        known = self._configs.get(key)
        if known is None:
            values = self._class(endpoint).get_config(**overrides)
            known = self._configs[key] = _Config(values.get("private_keys") or (), values, subflow_specs(values))
        return known

    def _defaults(self, endpoint: Endpoint) -> tuple[Mapping[str, Any], type[Flow]]:
        """The config that its class has before any override, and the class; read once."""
        known = self._class_configs.get(endpoint.name)
        if known is None:
            flow_class = self._class(endpoint)
            known = self._class_configs[endpoint.name] = load_class_config(flow_class), flow_class
        return known

    def _class(self, endpoint: Endpoint) -> type[Flow]:
        version = endpoint.versions[serve_key(endpoint.name, "flow_class_name")]
        return self._classes.resolve(endpoint.flow_class_name, version)

    def _address(self, request: MountRequest, endpoint: Endpoint) -> InstanceAddress:
        point = request.dispatch_point_override or endpoint.dispatch_point
        if point not in self._partitions:
            known = open_point(self._cl, point) if request.client == LOCAL else partitions_of(self._cl.store, point)
            if known is None:
                raise FlowConfigError(
                    f"User {self._cl.user_id} has no dispatch point {point!r}.",
                    hint="Leave dispatch_point_override out, or ask the owner which points he has.",
                )
            self._partitions[point] = known
        flow_id = request.flow_id
        partition = None if endpoint.parallel else partition_of(flow_id, self._partitions[point])
        return InstanceAddress(self._cl.user_id, endpoint.name, flow_id, point, partition)

    def _check_size(self, count: int) -> None:
        if count > MAX_TREE:
            name = self.nodes[0].request.endpoint
            raise FlowInstanceError(f"The tree of {name} has more than {MAX_TREE} instances.")


@contextmanager
def named(steps: Sequence[str]) -> Iterator[None]:
    """Names the links from the root, in an error that passes through."""
    try:
        yield
    except CoflowsError as error:
        told: CoflowsError = error
        for step in reversed(steps):
            told = Failure.of(told).within(step)
        if told is error:
            raise
        raise told from error


def _init_key(request: MountRequest) -> str:
    return MountPath(request.endpoint, request.client, request.flow_id).key("init")


def _address_in(entry: Entry) -> InstanceAddress:
    return InstanceAddress.from_dict(read(entry.value)["address"])
