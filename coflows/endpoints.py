"""Serve entries and dispatch points as they stand in a user's store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coflows.access.rules import EVERYBODY, Access
from coflows.broker.topology import dispatch_queues
from coflows.client import Client
from coflows.codec.wire import decode, encode
from coflows.errors import ConflictError, EndpointNotFoundError
from coflows.model.layout import FLOWS, SERVE_FIELDS, point_key, rule_key, serve_key
from coflows.store.base import ABSENT, Entry, Store

DEFAULT_PARTITIONS = 8
MAX_RECORD = 2**26
MAX_NESTING = 500


def read(data: bytes) -> Any:
    """Decode a record of the user's own store."""
    return decode(data, max_bytes=MAX_RECORD, max_depth=MAX_NESTING)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A serve entry. ``served`` is False after it was unserved; ``versions`` are those of its keys, for conditions.
    ``access`` says who may fetch it."""

    name: str
    flow_class_name: str
    dispatch_point: str
    singleton: bool
    parallel: bool
    served: bool
    versions: Mapping[str, int]
    access: Access = EVERYBODY

    @property
    def internal(self) -> bool:
        """Whether it serves the runtime itself, as those of colonies and executors do: nobody fetches it by name."""
        return self.flow_class_name.startswith("coflows.")

    def writes(self) -> dict[str, bytes]:
        """The keys and values of the entry, as served."""
        values: dict[str, Any] = {
            "init": True,
            "flow_class_name": self.flow_class_name,
            "default_dispatch_point": self.dispatch_point,
            "singleton": self.singleton,
            "parallel_dispatch": self.parallel,
        }
        return {serve_key(self.name, field): encode(value) for field, value in values.items()}


def find_endpoints(store: Store, names: Iterable[str]) -> dict[str, Endpoint]:
    """Those of the serve entries that there are, whether served or unserved; read at once."""
    wanted = list(dict.fromkeys(names))
    keys = [serve_key(name, field) for name in wanted for field in SERVE_FIELDS]
    entries = store.get_many(keys + [rule_key(name) for name in wanted])
    found = {name: _from_entries(name, entries) for name in wanted}
    return {name: endpoint for name, endpoint in found.items() if endpoint is not None}


def find_endpoint(store: Store, name: str) -> Endpoint | None:
    """The serve entry, whether served or unserved, or None."""
    return find_endpoints(store, [name]).get(name)


def _from_entries(name: str, found: Mapping[str, Entry]) -> Endpoint | None:
    entries = {field: found.get(serve_key(name, field)) for field in SERVE_FIELDS}
    rule = found.get(rule_key(name))
    values = {field: read(entry.value) for field, entry in entries.items() if entry is not None}
    if len(values.keys() - {"init"}) < len(SERVE_FIELDS) - 1:
        return None
    return Endpoint(
        name=name,
        flow_class_name=values["flow_class_name"],
        dispatch_point=values["default_dispatch_point"],
        singleton=values["singleton"],
        parallel=values["parallel_dispatch"],
        served=values.get("init") is True,
        versions={
            serve_key(name, field): ABSENT if entry is None else entry.version for field, entry in entries.items()
        }
        | {rule_key(name): ABSENT if rule is None else rule.version},
        access=EVERYBODY if rule is None else Access.from_dict(read(rule.value)),
    )


def not_served(name: str, user_id: str) -> EndpointNotFoundError:
    """The error for an endpoint that is not served."""
    return EndpointNotFoundError(
        f"User {user_id} serves nothing under {name!r}.",
        hint="`coflows flows` lists what a user serves; names are case-sensitive.",
    )


def endpoint_names(store: Store) -> Iterator[str]:
    """The names of all endpoints, served or not, in order; skips over the instances of each."""
    start = FLOWS
    while found := store.keys(FLOWS, start=start, limit=1):
        name = found[0].split(":")[1]
        yield name
        start = f"{FLOWS}{name};"  # ';' is the character after ':'


def partitions_of(store: Store, dispatch_point: str) -> int | None:
    """How many partitions a dispatch point has, None when there is no such point."""
    entry = store.get(point_key(dispatch_point))
    return None if entry is None else int(read(entry.value)["partitions"])


def ensure_point(cl: Client, dispatch_point: str, partitions: int = DEFAULT_PARTITIONS) -> int:
    """Make a dispatch point with its queues unless it exists; gives the number of its partitions, which is fixed when
    the point is made."""
    known = partitions_of(cl.store, dispatch_point)
    if known is None:
        try:
            value = encode({"partitions": partitions})
            cl.store.commit({point_key(dispatch_point): value}, conditions={point_key(dispatch_point): ABSENT})
            known = partitions
        except ConflictError:
            known = partitions_of(cl.store, dispatch_point) or partitions
    cl.declare(*dispatch_queues(cl.user_id, dispatch_point, known))
    return known


def open_point(cl: Client, dispatch_point: str) -> int:
    """``ensure_point``, which does not ask the broker again when this session has made the point's queues before."""
    known = partitions_of(cl.store, dispatch_point)
    if known is None or not all(map(cl.has_declared, dispatch_queues(cl.user_id, dispatch_point, known))):
        return ensure_point(cl, dispatch_point)
    return known
