"""Instances of a tree: those that are there, those that are to be mounted, and what is written for the latter."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coflows.codec.state import encode_state
from coflows.codec.wire import encode
from coflows.endpoints import Endpoint
from coflows.errors import FlowInstanceError
from coflows.model.address import InstanceAddress
from coflows.model.layout import MountPath, metadata_key, serve_key, usage_key
from coflows.model.names import LOCAL
from coflows.model.wire import ChainLink, as_mapping
from coflows.resolution import MountRequest, Plan
from coflows.usage import mount_usage


@dataclass(frozen=True, slots=True)
class Mounted:
    """An instance that is there: its address, how many instances its tree holds, what the caller should know, and
    whether he is to keep it (``Keep``)."""

    address: InstanceAddress
    count: int = 1
    warnings: tuple[str, ...] = ()
    probation: bool = False

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict; ``from_dict`` reads it back."""
        return {
            "address": self.address.to_dict(),
            "count": self.count,
            "warnings": list(self.warnings),
            "probation": self.probation,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any], owner: str, endpoint: str) -> Mounted:
        """Check what ``owner`` answered; raises SerializationError, or FlowInstanceError for another's address."""
        address = InstanceAddress.from_dict(as_mapping(value.get("address")))
        if (address.user_id, address.flow_endpoint) != (owner, endpoint):
            raise FlowInstanceError(f"User {owner} answered with an instance of somebody else.")
        warnings = value.get("warnings")
        texts = tuple(str(text)[:500] for text in warnings[:20]) if isinstance(warnings, list) else ()
        count = value.get("count")
        return cls(address, max(1, count) if type(count) is int else 1, texts, value.get("probation") is True)


@dataclass(slots=True)
class Node:
    """An instance that is to be mounted here. ``plan`` says which subflows it has here and at others; in ``subflows``
    are those that are there or decided to be mounted."""

    request: MountRequest
    endpoint: Endpoint
    address: InstanceAddress
    chain: tuple[ChainLink, ...]
    plan: Plan
    subflows: dict[str, Node | Mounted] = field(default_factory=dict)

    def mounted(self) -> Mounted:
        """The instance with its tree, as it is once all is there."""
        below = {key: one.mounted() if isinstance(one, Node) else one for key, one in self.subflows.items()}
        count = 1 + sum(one.count for one in below.values())
        warnings = tuple(f"subflow {key!r}: {text}" for key, one in below.items() for text in one.warnings)
        return Mounted(self.address, count, warnings, on_probation(self.request, self.endpoint))

    def to_keep(self, user_id: str) -> dict[str, list[str]]:
        """What this instance has at others than ``user_id``, itself or through its subflows here, by user."""
        found: dict[str, list[str]] = {}
        for one in self.subflows.values():
            if isinstance(one, Mounted):
                if one.probation and one.address.user_id != user_id:
                    found.setdefault(one.address.user_id, []).append(one.address.flow_id)
            elif not one.endpoint.singleton:  # One that is a singleton is kept for itself.
                for owner, flow_ids in one.to_keep(user_id).items():
                    found.setdefault(owner, []).extend(flow_ids)
        return found

    @property
    def for_user(self) -> str | None:
        """Whose usage the instance counts as: nobody's when it is there for all."""
        return None if self.endpoint.singleton else self.request.for_user

    def sizes(self) -> tuple[int, int]:
        """Bytes of all of it that stays as it is, and of its state."""
        return _sizes(self._values())

    def writes(self) -> dict[str, bytes]:
        """What mounts the instance."""
        request, address = self.request, self.address
        path = MountPath(address.flow_endpoint, request.client, address.flow_id)
        values = self._values()
        writes = {path.key(field): value for field, value in values.items()}
        metadata = {"flow_endpoint": path.endpoint, "user_id": request.client}
        if request.grant is not None and not self.endpoint.singleton:
            metadata["grant"] = request.grant
        writes[metadata_key(address.flow_id)] = encode(metadata)
        if (user_id := self.for_user) is not None:
            writes[usage_key(user_id, path.endpoint, address.flow_id)] = mount_usage(*_sizes(values))
        if self.endpoint.singleton:
            # Written anew with the same value: its new version makes whoever mounts at the same time decide again.
            writes[serve_key(path.endpoint, "singleton")] = encode(True)
        return writes

    def _values(self) -> dict[str, bytes]:
        request, address = self.request, self.address
        subflows = {key: one.address.to_dict() for key, one in self.subflows.items()}
        init = {"created_at": time.time(), "address": address.to_dict(), "subflows": subflows}
        if (user_id := self.for_user) is not None:
            init["for_user"] = user_id
        values = {"init": encode(init), "config_overrides": encode(request.config_overrides)}
        if request.initial_state is not None:
            values["state"] = encode_state(request.initial_state)
        if request.dispatch_point_override is not None:
            values["dispatch_point_override"] = encode(request.dispatch_point_override)
        return values


def on_probation(request: MountRequest, endpoint: Endpoint) -> bool:
    """Whether an instance that is mounted for the request goes again unless its fetch keeps it."""
    return request.keep_by is not None and request.client != LOCAL and not endpoint.singleton


def _sizes(values: Mapping[str, bytes]) -> tuple[int, int]:
    state = len(values.get("state", b""))
    return sum(map(len, values.values())) - state, state
