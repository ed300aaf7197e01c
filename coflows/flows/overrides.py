"""What an override of a config may hold, and which keys another user may override."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from types import NoneType
from typing import Any

from coflows.errors import FlowConfigError

MAX_DEPTH = 64
MAX_SHOWN = 20
"""Keys that an error lists."""
ALWAYS = ("name", "description")
"""Anybody may call an instance what he likes."""
_SUBFLOWS = "subflows_config"
_CLASS_NAME = "flow_class_name"
_SOURCE = ("user_id", "flow_endpoint", "grant", _CLASS_NAME)
"""Of a subflow: whose it is, what, and by which right."""
_OWNERS = ("runs_in", "memory_limit")
"""Of a flow: what it may take of its owner's machine."""

Path = tuple[str, ...]


def check_overrides(overrides: Mapping[str, Any], private_keys: Collection[str] = ()) -> None:
    """Raise FlowConfigError, naming the dotted key, for an override that is more than data: a key like
    ``_x_``, a text with ``${``, a key that is no text; and for a value under one of ``private_keys``,
    which would be stored."""
    if not isinstance(overrides, Mapping):
        raise FlowConfigError(
            f"Config overrides are a {type(overrides).__name__}, not a dict.", hint='Pass a dict: {"key": value}.'
        )
    _check_override(overrides, "", frozenset(private_keys), 0)


def _check_override(value: object, at: str, private: frozenset[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise FlowConfigError(
            f"Override {at[:80]!r}... is nested deeper than {MAX_DEPTH}, or contains itself.", hint="Flatten it."
        )
    if isinstance(value, str):
        if "${" in value:
            raise FlowConfigError(
                f"Override {at!r} contains '${{', which is not allowed in overrides.",
                hint="Write the value itself.",
            )
    elif isinstance(value, (dict, Mapping)):
        for key, item in value.items():
            dotted = f"{at}.{key}" if at else f"{key}"
            _check_override_key(key, dotted, private)
            _check_override(item, dotted, private, depth + 1)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check_override(item, f"{at}.{index}", private, depth + 1)


def _check_override_key(key: object, dotted: str, private: frozenset[str]) -> None:
    if not isinstance(key, str):
        raise FlowConfigError(f"Override key {dotted} is {type(key).__name__}, not text.", hint="Use a str.")
    if "${" in key:
        raise FlowConfigError(
            f"Override {dotted!r} contains '${{', which is not allowed in overrides.", hint="Write the key itself."
        )
    if key.startswith("_") and key.endswith("_"):
        raise FlowConfigError(
            f"Override {dotted!r} is not allowed: keys that begin and end with '_' choose code, not data.",
            hint="Leave it out; which class runs is decided by who serves the flow.",
        )
    if key in private:
        raise FlowConfigError(
            f"Override {dotted!r} is private: it would be stored and sent.",
            hint="Give it to the dispatch worker as a secret; the flow reads it from self.secrets.",
        )


def check_no_class(overrides: Mapping[str, Any]) -> None:
    """Raise FlowConfigError for an override that says of which class a subflow is. Call ``check_overrides`` first."""
    for path, _ in _leaves(overrides):
        if _is_source(path) and path[-1] == _CLASS_NAME:
            raise FlowConfigError(
                f"Override {_dotted(path)!r} is not allowed: it chooses a class.",
                hint="Leave it out; which class runs is decided by who serves the flow.",
            )


def check_overridable(
    config: Mapping[str, Any],
    overrides: Mapping[str, Any],
    class_name: str,
    fields: Sequence[str] | None = None,
) -> None:
    """Raise FlowConfigError for an override from another user that the owner does not allow. ``config`` is that of the
    class, before any override. Its ``overridable`` lists what may be overridden, as dotted keys with all under them, in
    which ``*`` stands for anything but a dot. Where it has none, that is what the class's ``Config`` model has
    (``fields``), and without such a model what the config has as plain values, except where a subflow is fetched from
    and what the flow takes of its owner's machine. Call ``check_overrides`` first."""
    check_no_class(overrides)
    allowed, refused = _sorted_out(config, overrides, fields)
    if refused:
        raise FlowConfigError(
            f"The owner of {class_name} does not let others override: {_shown(refused)}.",
            hint=f"Others may override: {_shown(allowed)}. He lists what they may as `overridable` in "
            f"{class_name}.yaml.",
        )


def not_overridable(
    config: Mapping[str, Any], overrides: Mapping[str, Any], fields: Sequence[str] | None = None
) -> list[str]:
    """The dotted keys for which ``check_overridable`` raises."""
    return _sorted_out(config, overrides, fields)[1]


def _sorted_out(
    config: Mapping[str, Any], overrides: Mapping[str, Any], fields: Sequence[str] | None
) -> tuple[list[str], list[str]]:
    """What may be overridden, and what of the overrides may not."""
    listed = config.get("overridable")
    if listed is None and fields is not None:
        listed = list(fields)
    if listed is None:
        plain = {path for path, value in _leaves(config) if _is_plain(value) and not _is_owners(path)}
        allowed = [*ALWAYS, *(_dotted(path) for path in plain if _dotted(path) not in ALWAYS)]
        refused = [
            path
            for path, value in _leaves(overrides)
            if path[0] not in ALWAYS and not (path in plain and _is_plain(value))
        ]
    else:
        allowed = [*ALWAYS, *(listed if isinstance(listed, list) else ())]
        patterns = [tuple(key.split(".")) for key in allowed]
        refused = [path for path, _ in _leaves(overrides) if not any(_covers(one, path) for one in patterns)]
    return allowed, [_dotted(path) for path in refused]


def _leaves(value: Mapping[str, Any], at: Path = ()) -> Iterator[tuple[Path, object]]:
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, (*at, str(key)))
        else:
            yield (*at, str(key)), item


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | NoneType)


def _is_source(path: Path) -> bool:
    return len(path) > 2 and path[-3] == _SUBFLOWS and path[-1] in _SOURCE


def _is_owners(path: Path) -> bool:
    of_subflow = len(path) > 2 and path[-3] == _SUBFLOWS and path[-1] in _OWNERS
    return of_subflow or path[0] in _OWNERS or _is_source(path)


def _covers(pattern: Path, path: Path) -> bool:
    return len(pattern) <= len(path) and all(map(fnmatchcase, path, pattern))


def _dotted(path: Path) -> str:
    return ".".join(path)


def _shown(keys: Sequence[str]) -> str:
    found = sorted(keys)
    return ", ".join(found[:MAX_SHOWN]) + (f" and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else "")
