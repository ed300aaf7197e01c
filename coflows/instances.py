"""Instances as they stand in their owner's store: found, listed, removed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from coflows.codec.wire import encode
from coflows.endpoints import read
from coflows.errors import InstanceNotFoundError
from coflows.identity.sealing import LONGEST, SKEW
from coflows.model.address import InstanceAddress
from coflows.model.layout import (
    FETCHED,
    METADATA,
    MountPath,
    attempts_prefix,
    calls_prefix,
    charged_prefix,
    done_prefix,
    due_key,
    granted_prefix,
    keeping_key,
    metadata_key,
    mounts_prefix,
    order_prefix,
    parse_mount_key,
    records_prefix,
    released_key,
    replies_prefix,
    timers_prefix,
    usage_key,
)
from coflows.model.names import LOCAL
from coflows.store.base import Entry, Store

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Instance:
    """A mounted instance: its place, its address, and the addresses of its subflows. ``version`` is that of its
    metadata; a commit on condition of it fails once the instance is deleted. ``grant`` is the one it was mounted by,
    ``for_user`` whose usage it counts as, None when nobody's."""

    path: MountPath
    address: InstanceAddress
    subflows: Mapping[str, InstanceAddress]
    version: int
    grant: str | None = None
    for_user: str | None = None


def no_such_instance(flow_id: str) -> InstanceNotFoundError:
    """The error for an instance that is not there, and for one that is not the sender's: nobody learns which."""
    return InstanceNotFoundError(
        f"There is no instance {flow_id}.", hint="It may have been deleted; fetch one with get_flow_instance."
    )


def find_instance(store: Store, flow_id: str, metadata: Entry | None = None) -> Instance | None:
    """The instance, or None when there is none or it is being deleted; ``metadata``, when it was read already."""
    metadata = metadata or store.get(metadata_key(flow_id))
    if metadata is None:
        return None
    value = read(metadata.value)
    path = MountPath(value["flow_endpoint"], value["user_id"], flow_id)
    init = store.get(path.key("init"))
    if init is None:
        return None
    record = read(init.value)
    return Instance(
        path=path,
        address=InstanceAddress.from_dict(record["address"]),
        subflows={key: InstanceAddress.from_dict(value) for key, value in record["subflows"].items()},
        version=metadata.version,
        grant=value.get("grant"),
        for_user=record.get("for_user"),
    )


def instance_ids(store: Store) -> Iterator[str]:
    """The ids of all instances, in order, read a page at a time."""
    for key in all_keys(store, METADATA):
        yield key[len(METADATA) :]


def fetched_instances(store: Store) -> Iterator[InstanceAddress]:
    """The addresses of the instances that this user has fetched from others, in the order of their ids."""
    for entry in all_entries(store, FETCHED):
        yield InstanceAddress.from_dict(read(entry.value))


def mounted_ids(store: Store, endpoint: str) -> list[str]:
    """The ids of all instances of one endpoint."""
    found: dict[str, Any] = {}
    for key in all_keys(store, mounts_prefix(endpoint)):
        parsed = parse_mount_key(key)
        if parsed is not None:
            found[parsed[0].flow_id] = None
    return list(found)


def instance_keys(store: Store, instance: Instance) -> list[str]:
    """All keys that an instance has: its mount, its metadata, its records and timers, and the records of its turns."""
    path, address = instance.path, instance.address
    flow_id = path.flow_id
    prefixes = (
        path.prefix,
        done_prefix(flow_id),
        replies_prefix(flow_id),
        calls_prefix(flow_id),
        order_prefix(flow_id),
        attempts_prefix(flow_id),
        records_prefix(flow_id),
        granted_prefix(flow_id),
        charged_prefix(flow_id),
    )
    keys = [metadata_key(flow_id), keeping_key(flow_id)]
    if instance.for_user is not None:
        keys.append(usage_key(instance.for_user, path.endpoint, flow_id))
    keys += (key for prefix in prefixes for key in all_keys(store, prefix))
    for key in all_keys(store, timers_prefix(flow_id)):
        timer = key.removeprefix(timers_prefix(flow_id))
        keys += (key, due_key(address.dispatch_point, timer, address.partition, flow_id))
    return keys


def tombstones(instance: Instance, until: float | None = None) -> dict[str, bytes]:
    """What stays of an instance that another user's request had mounted: that request, come again, would mount it anew,
    and messages to it that come again would be worked off anew, since the records of its turns are gone. ``until``:
    when the request is not valid any more (seconds since the epoch); None: that is not known."""
    client, now = instance.path.client, time.time()
    if client == LOCAL:
        return {}
    return {released_key(client, instance.path.flow_id): encode({"at": now, "until": until or now + LONGEST + SKEW})}


def all_keys(store: Store, prefix: str) -> Iterator[str]:
    """All keys under a prefix, read a page at a time."""
    start: str | None = None
    while page := store.keys(prefix, start=start, limit=PAGE):
        yield from page
        if len(page) < PAGE:
            return
        start = page[-1] + "\x01"


def all_entries(store: Store, prefix: str) -> Iterator[Entry]:
    """All entries under a prefix, read a page at a time."""
    start: str | None = None
    while page := store.scan(prefix, start=start, limit=PAGE):
        yield from page
        if len(page) < PAGE:
            return
        start = page[-1].key + "\x01"
