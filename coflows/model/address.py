"""Where an instance lives: its owner, endpoint and id, and the queue its messages go to."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coflows.errors import SerializationError
from coflows.model.names import check_dispatch_point, check_endpoint, check_flow_id, check_user_id

MAX_PARTITIONS = 4096


def partition_of(flow_id: str, partitions: int) -> int:
    """The partition of an instance: CRC-32 of its id, modulo the number of partitions of its dispatch point."""
    return zlib.crc32(flow_id.encode()) % partitions


@dataclass(frozen=True, slots=True)
class InstanceAddress:
    """All that a caller needs to reach an instance. ``partition`` is None for a parallel endpoint."""

    user_id: str
    flow_endpoint: str
    flow_id: str
    dispatch_point: str
    partition: int | None

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict; ``from_dict`` reads it back."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> InstanceAddress:
        """Check and build; raises SerializationError or NameInvalidError. Safe on data from other users."""
        try:
            partition = value["partition"]
            if partition is not None and not (type(partition) is int and 0 <= partition < MAX_PARTITIONS):
                raise SerializationError(f"Instance address has partition {partition!r}.")
            return cls(
                user_id=check_user_id(value["user_id"]),
                flow_endpoint=check_endpoint(value["flow_endpoint"]),
                flow_id=check_flow_id(value["flow_id"]),
                dispatch_point=check_dispatch_point(value["dispatch_point"]),
                partition=partition,
            )
        except (KeyError, TypeError) as error:
            raise SerializationError(f"Instance address is malformed: {error!r}.") from error
