"""What a colony has on record, read by its runs: who may do what, and which executors are there.

r:{user}                         [may submit, may execute]
e:{executortype}:{user}:{id}     an executor: [address, that of its control, when it was heard of last, its concurrency]
g:{run}                          a run: [who submitted it, when, its alias or None]
i:{user}:{mark of a run_id}      an alias: the run that was submitted under a run_id
a:{run}                          a run that is not over
n:{user}                         how many runs are a guest's
u:{user}:{submission}            a submission that comes in parts: [how many came, the timer after which it is dropped]
p:{user}:{submission}:{number}   one part of it
w:{executortype}:{run}           a run that waits for more executors of this type: for how many steps they had room
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from coflows.codec.wire import decode
from coflows.errors import SerializationError
from coflows.model.address import InstanceAddress
from coflows.model.layout import record_key, records_prefix
from coflows.store.base import Store

MAX_RECORD = 2**26
HEARTBEAT = 5.0
"""Seconds after which an executor says again that it is there."""
TIME_TO_LIVE = 20.0
"""Seconds after which an executor that was not heard of counts as gone."""


@dataclass(frozen=True, slots=True)
class Rights:
    """What a user may do in a colony."""

    submit: bool = False
    execute: bool = False


@dataclass(slots=True)
class Crew:
    """The executors of one type that one user has: where they get their steps, where they are told of other things, and
    for how many steps at once they have room."""

    address: InstanceAddress
    control: InstanceAddress
    size: int = 1


class Registry:
    """Reads what a colony's one instance, ``flow_id``, has committed. Thread-safe; raises what the store raises."""

    def __init__(self, store: Store, flow_id: str) -> None:
        self._store = store
        self._flow_id = flow_id

    def rights(self, user_id: str) -> Rights:
        """What a guest may do."""
        entry = self._store.get(record_key(self._flow_id, f"r:{user_id}"))
        return Rights() if entry is None else Rights(*_read(entry.value))

    def crews(self, executortype: str) -> dict[str, Crew]:
        """The executors of a type by user, without those that were not heard of for long."""
        prefix = f"{records_prefix(self._flow_id)}e:{executortype}:"
        found: dict[str, Crew] = {}
        for entry in self._store.scan(prefix):
            user = entry.key.removeprefix(prefix).split(":")[0]
            address, control, seen, *rest = _read(entry.value)
            if time.time() - seen > TIME_TO_LIVE:
                continue
            size = room_of(rest)
            if user in found:
                found[user].size += size
            else:
                found[user] = Crew(InstanceAddress.from_dict(address), InstanceAddress.from_dict(control), size)
        return found

    def parts(self, user: str, submission: str, count: int) -> list[Any]:
        """What a submission in so many parts consists of; SerializationError when a part is missing."""
        keys = [record_key(self._flow_id, part_name(user, submission, number)) for number in range(count)]
        found = self._store.get_many(keys)
        if len(found) < count:
            raise SerializationError(f"Of {count} parts of a workflow {len(found)} have come.", hint="Submit again.")
        return [one for key in keys for one in _read(found[key].value)]


def part_name(user: str, submission: str, number: int) -> str:
    """The name of the record of a part."""
    return f"p:{user}:{submission}:{number}"


def room_of(rest: list[int]) -> int:
    """What the record of an executor ends with; one of before has none, and counts as one."""
    return rest[0] if rest else 1


def _read(value: bytes) -> Any:
    return decode(value, max_bytes=MAX_RECORD)
