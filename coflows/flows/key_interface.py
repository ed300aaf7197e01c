"""KeyInterface: turns what one flow says into what another one reads."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from coflows.errors import FlowConfigError, FlowError
from coflows.model.messages import FlowMessage

Data = dict[str, Any]
Path = tuple[str, ...]


class KeyInterface:
    """Renames, copies, sets, transforms, selects and deletes keys of a dict, in this order.

    A dotted key ``"a.b"`` reaches into nested dicts; parents are made when one is written. Within a step,
    all sources are read before anything is written, so ``{"a": "b", "b": "a"}`` swaps. A key to rename,
    copy or select that is missing raises FlowError; one to delete need not be there.
    ``additional_transformations`` are called with a dict of their own and give a dict back. Nothing to
    select keeps everything. Raises FlowConfigError when it is made of something else. Immutable, so it
    may be shared between threads.
    """

    def __init__(
        self,
        keys_to_rename: Mapping[str, str] | None = None,
        keys_to_copy: Mapping[str, str] | None = None,
        keys_to_set: Mapping[str, Any] | None = None,
        additional_transformations: Sequence[Callable[[Data], Data]] = (),
        keys_to_select: Sequence[str] = (),
        keys_to_delete: Sequence[str] = (),
    ) -> None:
        self._rename = _path_pairs("keys_to_rename", keys_to_rename)
        self._copy = _path_pairs("keys_to_copy", keys_to_copy)
        self._set = [
            (_path("keys_to_set", key), copy.deepcopy(value))
            for key, value in _mapping("keys_to_set", keys_to_set).items()
        ]
        self._transformations = _callables(additional_transformations)
        self._select = _paths("keys_to_select", keys_to_select)
        self._delete = _paths("keys_to_delete", keys_to_delete)

    def __call__(self, data_or_message: Data | FlowMessage) -> Data:
        """The new dict. The input is never changed, and shares nothing with the result."""
        data = data_or_message.data if isinstance(data_or_message, FlowMessage) else data_or_message
        if not isinstance(data, dict):
            raise FlowError(
                f"KeyInterface: expected a dict or a message, not {type(data).__name__}.",
                hint="Call it with a reply's data, or with the message.",
            )
        data = copy.deepcopy(data)
        _rename(data, self._rename)
        _copy(data, self._copy)
        _write_all(data, [(path, copy.deepcopy(value)) for path, value in self._set])
        for transformation in self._transformations:
            data = _transformed(data, transformation)
        if self._select:
            data = _selected(data, self._select)
        for path in self._delete:
            _delete(data, path)
        return data


# -- steps -----------------------------------------------------------------------------------------------


def _rename(data: Data, pairs: list[tuple[Path, Path]]) -> None:
    values = [(new, copy.deepcopy(_read(data, old))) for old, new in pairs]
    for old, _ in pairs:
        _delete(data, old)
    _write_all(data, values)


def _copy(data: Data, pairs: list[tuple[Path, Path]]) -> None:
    _write_all(data, [(target, copy.deepcopy(_read(data, source))) for source, target in pairs])


def _transformed(data: Data, transformation: Callable[[Data], Data]) -> Data:
    result = transformation(data)
    if not isinstance(result, dict):
        name = getattr(transformation, "__qualname__", repr(transformation))
        raise FlowError(
            f"KeyInterface: transformation {name} gave {type(result).__name__}, not a dict.",
            hint="Return the dict that the next step is to work on.",
        )
    return result


def _selected(data: Data, paths: list[Path]) -> Data:
    result: Data = {}
    _write_all(result, [(path, copy.deepcopy(_read(data, path))) for path in paths])
    return result


# -- paths -----------------------------------------------------------------------------------------------


def _read(data: Data, path: Path) -> Any:
    value: Any = data
    for part in path:
        if not isinstance(value, dict) or part not in value:
            known = ", ".join(str(key) for key in data) or "nothing"
            raise FlowError(f"KeyInterface: key {'.'.join(path)!r} is not in the data.", hint=f"It has: {known}.")
        value = value[part]
    return value


def _write_all(data: Data, values: Iterable[tuple[Path, Any]]) -> None:
    for path, value in values:
        _write(data, path, value)


def _write(data: Data, path: Path, value: Any) -> None:
    parent = data
    for depth, part in enumerate(path[:-1], start=1):
        child = parent.setdefault(part, {})
        if not isinstance(child, dict):
            raise FlowError(
                f"KeyInterface: key {'.'.join(path)!r} cannot be written: {'.'.join(path[:depth])!r} is a "
                f"{type(child).__name__}, not a dict.",
                hint="Rename or delete what stands there first.",
            )
        parent = child
    parent[path[-1]] = value


def _delete(data: Data, path: Path) -> None:
    parent: Any = data
    for part in path[:-1]:
        parent = parent.get(part) if isinstance(parent, dict) else None
    if isinstance(parent, dict):
        parent.pop(path[-1], None)


# -- arguments -------------------------------------------------------------------------------------------


def _path(argument: str, key: object) -> Path:
    if not isinstance(key, str) or not all(parts := key.split(".")):
        raise FlowConfigError(
            f"KeyInterface: {argument} has {key!r}, which is no key.",
            hint="Write a key, or a dotted key like a.b.",
        )
    return tuple(parts)


def _paths(argument: str, keys: object) -> list[Path]:
    if isinstance(keys, str) or not isinstance(keys, Sequence):
        raise FlowConfigError(
            f"KeyInterface: {argument} is a {type(keys).__name__}, not a list of keys.", hint='Write ["key"].'
        )
    return [_path(argument, key) for key in keys]


def _mapping(argument: str, value: object) -> Mapping[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise FlowConfigError(
            f"KeyInterface: {argument} is a {type(value).__name__}, not a dict.", hint='Write {"key": ...}.'
        )
    return value


def _path_pairs(argument: str, value: object) -> list[tuple[Path, Path]]:
    return [(_path(argument, old), _path(argument, new)) for old, new in _mapping(argument, value).items()]


def _callables(transformations: Sequence[Callable[[Data], Data]]) -> list[Callable[[Data], Data]]:
    for transformation in transformations:
        if not callable(transformation):
            raise FlowConfigError(
                f"KeyInterface: additional_transformations has {transformation!r}, which cannot be called.",
                hint="Pass functions that take a dict and give one back.",
            )
    return list(transformations)
