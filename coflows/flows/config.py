"""A flow's config as a pure value: merged along the class hierarchy, checked, and read as a plan of
subflows."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any

from coflows.errors import FlowConfigError, NameInvalidError
from coflows.flows.class_file import class_label, config_place, read_class_file
from coflows.model.flow_names import REGISTRY, SCHEME, FlowName
from coflows.model.names import LOCAL, check_endpoint, check_subflow_key, check_user_id

TARGET = "_target_"
IN_PROCESS = "process"
_ATOMS = (str, int, float, bool, NoneType)
"""What most values are: looked for first, and not copied."""
_KEY_LISTS = ("input_interface", "output_interface", "private_keys", "overridable")
_SPEC_FIELDS = ("user_id", "flow_endpoint", "flow_class_name", "grant", TARGET)


@dataclass(frozen=True, slots=True)
class SubflowSpec:
    """One subflow to fetch: whose it is (a user id, "local", or "registry" for who the registries say serves it), at
    which endpoint, with which overrides.
    ``flow_class_name`` is the class to serve it with when it is this user's and not served yet; ``grant`` is the token
    by which another user lets this one fetch it."""

    user_id: str
    flow_endpoint: str
    flow_class_name: str | None = None
    config_overrides: dict[str, Any] = field(default_factory=dict)
    grant: str | None = None


# -- merge -----------------------------------------------------------------------------------------------


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` on top: mappings are merged key by key, anything else is replaced.
    ``_target_`` keys are dropped. The result shares nothing with its inputs, which stay as they are."""
    merged = without_targets(base)
    for key, value in over.items():
        if key == TARGET:
            continue
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = deep_merge(old, value)
        else:
            merged[key] = _without_targets(value)
    return merged


def without_targets(config: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy without ``_target_`` keys at any depth."""
    return {key: _without_targets(value) for key, value in config.items() if key != TARGET}


def _without_targets(value: Any) -> Any:
    if isinstance(value, _ATOMS):
        return value
    if isinstance(value, Mapping):
        return without_targets(value)
    if isinstance(value, list):
        return [_without_targets(item) for item in value]
    return copy.deepcopy(value)


def merge_config(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``deep_merge`` for whole configs: ``private_keys`` of both are kept, so nobody can take one away."""
    merged = deep_merge(base, over)
    old, new = base.get("private_keys"), over.get("private_keys")
    if isinstance(old, list) and isinstance(new, list):
        merged["private_keys"] = [*old, *(key for key in new if key not in old)]
    return merged


def load_class_config(cls: type) -> dict[str, Any]:
    """The defaults of a class: for each class of its hierarchy, the base first, the class attribute
    ``default_config`` and then ``ClassName.yaml``. Read from disk at each call; raises FlowConfigError."""
    config: dict[str, Any] = {}
    for part in reversed(cls.__mro__[:-1]):
        own = vars(part).get("default_config", {})
        if not isinstance(own, Mapping):
            raise FlowConfigError(
                f"{class_label(part)}.default_config is a {type(own).__name__}, not a mapping.",
                hint='Write it as a dict: default_config = {"name": ..., "description": ...}.',
            )
        config = merge_config(merge_config(config, own), read_class_file(part))
    return config


# -- check -----------------------------------------------------------------------------------------------


def validate_config(cls: type, config: Mapping[str, Any]) -> None:
    """Raise FlowConfigError unless the config has what every flow needs: ``name`` and ``description``,
    interfaces that are lists of keys, and complete subflows."""
    label = class_label(cls)
    for key in ("name", "description"):
        value = config.get(key)
        if not isinstance(value, str) or not value.strip():
            missing = "has no" if key not in config else "needs some text as its"
            raise FlowConfigError(
                f"The config of {label} {missing} {key!r}.", hint=f"Add `{key}: ...` to {config_place(cls)}."
            )
    for key in _KEY_LISTS:
        value = config.get(key)
        if value is not None and not _is_key_list(value):
            raise FlowConfigError(
                f"{key!r} in the config of {label} is not a list of keys: {type(value).__name__}.",
                hint=f"Write `{key}: [one_key, another_key]` in {config_place(cls)}.",
            )
    if config.get("runs_in", "thread") not in ("thread", IN_PROCESS):
        raise FlowConfigError(
            f"runs_in in the config of {label} is {config['runs_in']!r}.", hint="Write `runs_in: thread` or process."
        )
    limit = config.get("memory_limit")
    if limit is not None and not (type(limit) is int and limit > 0):
        raise FlowConfigError(
            f"memory_limit in the config of {label} is {limit!r}.",
            hint="Write it in bytes: `memory_limit: 1073741824`.",
        )
    if config.get("subflows_config") is not None:
        subflow_specs(config, where=f"the config of {label} ({config_place(cls)})")


def _is_key_list(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(key, str) and key for key in value)


def _covered(dotted: str, keys: Collection[str]) -> bool:
    return any(dotted == key or dotted.startswith(f"{key}.") for key in keys)


def differing_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], ignore: Collection[str] = ("name", "description")
) -> list[str]:
    """The dotted keys that ``new`` would change in ``old``, those in and under ``ignore`` aside. Keys
    that only ``old`` has do not count; so with nothing ignored the result is empty if and only if merging
    changes nothing."""
    return [key for key in _differing(old, new, "") if not _covered(key, ignore)]


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], at: str) -> list[str]:
    found: list[str] = []
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and (isinstance(before, Mapping) or (key not in old and value)):
            found += _differing(before or {}, value, f"{at}{key}.")
        elif key not in old or before != value:
            found.append(f"{at}{key}")
    return found


# -- subflows --------------------------------------------------------------------------------------------


def subflow_specs(config: Mapping[str, Any], where: str = "the config") -> dict[str, SubflowSpec]:
    """The subflows of a config, by key; ``{}`` for a flow that has none. Raises FlowConfigError naming
    ``where``, the subflow and the field."""
    subflows = config.get("subflows_config")
    if subflows is None:
        return {}
    if not isinstance(subflows, Mapping):
        raise FlowConfigError(
            f"subflows_config in {where} is a {type(subflows).__name__}, not a mapping.",
            hint="Write one entry for each subflow: its key, and under it user_id and flow_endpoint.",
        )
    return {_subflow_key(key, where): _subflow_spec(key, value, where) for key, value in subflows.items()}


def _subflow_key(key: object, where: str) -> str:
    try:
        return check_subflow_key(key)
    except NameInvalidError as error:
        raise FlowConfigError(f"In {where}: {error.message}", hint=error.hint) from error


def _subflow_spec(key: str, value: object, where: str) -> SubflowSpec:
    if not isinstance(value, Mapping):
        raise FlowConfigError(
            f"Subflow {key!r} in {where} is a {type(value).__name__}, not a mapping.",
            hint=f"Add user_id and flow_endpoint under subflows_config.{key}.",
        )
    user_id = _required(value, "user_id", key, where, "local, registry, or the id of the user who serves it")
    endpoint = _required(value, "flow_endpoint", key, where, "the endpoint it is served at")
    class_name = value.get("flow_class_name")
    if class_name is not None and not isinstance(class_name, str):
        raise FlowConfigError(
            f"Subflow {key!r} in {where} has a flow_class_name that is a {type(class_name).__name__}, not text.",
            hint="Write Package.ClassName, or leave it out.",
        )
    grant = value.get("grant")
    if grant is not None and not isinstance(grant, str):
        raise FlowConfigError(
            f"Subflow {key!r} in {where} has a grant that is a {type(grant).__name__}, not text.",
            hint="Write the token that its owner gave you, or leave it out.",
        )
    try:
        if user_id == REGISTRY:
            FlowName.parse(endpoint)
        else:
            if user_id != LOCAL:
                check_user_id(user_id)
            _check_endpoint(key, endpoint)
    except NameInvalidError as error:
        raise FlowConfigError(f"Subflow {key!r} in {where}: {error.message}", hint=error.hint) from error
    rest = {name: item for name, item in value.items() if name not in _SPEC_FIELDS}
    return SubflowSpec(user_id, endpoint, class_name, without_targets(rest), grant)


def _check_endpoint(key: str, endpoint: str) -> None:
    if endpoint.startswith(SCHEME):
        hint = f"Write user_id: {REGISTRY} under subflows_config.{key}."
        raise NameInvalidError(f"{endpoint[:80]!r} is looked up in registries.", hint=hint)
    check_endpoint(endpoint)


def _required(spec: Mapping[str, Any], name: str, key: str, where: str, meaning: str) -> str:
    value = spec.get(name)
    if value is None or value == "":
        raise FlowConfigError(
            f"Subflow {key!r} in {where} has no {name!r}.",
            hint=f"Add subflows_config.{key}.{name}: {meaning}.",
        )
    if not isinstance(value, str):
        raise FlowConfigError(
            f"{name!r} of subflow {key!r} in {where} is a {type(value).__name__}, not text.",
            hint=f"Write {meaning}.",
        )
    return value
