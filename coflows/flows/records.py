"""What an instance keeps besides its state: values under names, of which a turn reads and writes what it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coflows.codec.wire import decode, encode
from coflows.errors import FlowError
from coflows.flows.runtime import FlowRuntime

MAX_RECORD = 64 * 2**20
MAX_NESTING = 500


class Records:
    """Values that msgpack holds, under names of any printable characters. Written with the turn's commit, in time and
    bytes of what was changed; gone with the instance. Not for flows of parallel endpoints. Not thread-safe.

    What earlier turns have written is remembered as long as the flow is in memory, so it need not be committed yet.
    """

    def __init__(self) -> None:
        self._runtime: FlowRuntime | None = None
        self._known: dict[str, Any] = {}
        self._changed: dict[str, None] = {}

    def bind(self, runtime: FlowRuntime) -> None:
        """Read and write within a turn."""
        self._runtime = runtime

    def get(self, name: str, default: Any = None) -> Any:
        """The value, or ``default`` when there is none."""
        return self.get_many([name]).get(name, default)

    def get_many(self, names: list[str]) -> dict[str, Any]:
        """Those of the values that there are."""
        unknown = [name for name in names if name not in self._known]
        found = {name: _read(value) for name, value in self._store.read_records(unknown).items()} if unknown else {}
        found |= {name: self._known[name] for name in names if self._known.get(name) is not None}
        return found

    def scan(self, prefix: str = "") -> dict[str, Any]:
        """All values whose names begin so, by name, in order."""
        found = {name: _read(value) for name, value in self._store.scan_records(prefix).items()}
        found |= {name: value for name, value in self._known.items() if name.startswith(prefix)}
        return {name: found[name] for name in sorted(found) if found[name] is not None}

    def __setitem__(self, name: str, value: Any) -> None:
        """Write; None deletes."""
        self._known[name] = value
        self._changed[name] = None

    def __delitem__(self, name: str) -> None:
        self[name] = None

    def take_changes(self) -> Mapping[str, bytes | None]:
        """What was changed since this was called last, encoded; None is to be deleted. Raises SerializationError."""
        changed, self._changed = self._changed, {}
        return {name: None if self._known[name] is None else encode(self._known[name]) for name in changed}

    @property
    def _store(self) -> FlowRuntime:
        if self._runtime is None:
            raise FlowError("Records can be read and written in a turn only.", hint="Serve the flow.")
        return self._runtime


def _read(value: bytes) -> Any:
    return decode(value, max_bytes=MAX_RECORD, max_depth=MAX_NESTING)
