"""What must not leave a flow: values under private keys, and the worker's secrets."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn, TypeVar

from coflows.errors import SerializationError
from coflows.model.messages import FlowMessage

T = TypeVar("T")


def strip_private(value: T, private_keys: Collection[str]) -> T:
    """``value`` without the entries, at any depth, whose key is one of ``private_keys``.

    Looks into dicts, lists, tuples and messages (their subclasses keep their class), nowhere else. Never
    changes its input: containers are copied when there are private keys, and ``value`` itself is given
    back when there are none. What is shared or contains itself stays so.
    """
    return _strip(value, frozenset(private_keys), {}) if private_keys else value


def _strip(value: Any, private: frozenset[str], seen: dict[int, Any]) -> Any:
    if id(value) in seen:
        return seen[id(value)]
    if isinstance(value, dict):
        kept = seen[id(value)] = copy.copy(value)
        for key, item in value.items():
            if key in private:
                del kept[key]
            else:
                kept[key] = _strip(item, private, seen)
        return kept
    if isinstance(value, list):
        items = seen[id(value)] = copy.copy(value)
        items[:] = [_strip(item, private, seen) for item in value]
        return items
    if isinstance(value, tuple):
        parts = [_strip(item, private, seen) for item in value]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)
    if isinstance(value, FlowMessage):
        message = seen[id(value)] = replace(value)
        message.data = _strip(value.data, private, seen)
        return message
    return value


class Secrets(Mapping[str, str]):
    """The secrets that the worker was given, by name. Shows names only, and cannot be pickled or copied."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> str:
        try:
            return self._values[name]
        except KeyError:
            known = ", ".join(sorted(self._values)) or "none"
            raise KeyError(f"No secret {name!r}: give it to the dispatch worker. It has: {known}.") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Secrets {', '.join(sorted(self._values)) or 'none'}>"

    def __reduce__(self) -> NoReturn:
        raise SerializationError(
            "Secrets are never serialised or copied.", hint="Read the value from self.secrets in each turn."
        )
