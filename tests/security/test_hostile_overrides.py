"""Overrides, names and configs from others: they say what the owner lets them say, and choose no code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from coflows import AtomicFlow, Client
from coflows.errors import CoflowsError, FlowConfigError, NameInvalidError
from coflows.flows.config import merge_config, validate_config
from coflows.flows.overrides import check_overridable, check_overrides
from coflows.model import names
from coflows.model.layout import MountPath, parse_mount_key
from coflows.serving import IgnoredConfigWarning, get_flow_instance, serve_flow
from tests.security.operator import TIMEOUT
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

Users = Callable[..., list[Client]]
OWN = {
    "name": "Own",
    "description": "A composite.",
    "model": "small",
    "limits": {"tokens": 10, "hosts": ["a"]},
    "runs_in": "process",
    "memory_limit": 2**30,
    "private_keys": ["key"],
    "subflows_config": {
        "x": {"user_id": "local", "flow_endpoint": "x", "prompt": "p", "runs_in": "process", "memory_limit": 2**30},
        "y": {"user_id": "local", "flow_endpoint": "y", "subflows_config": {"z": {"memory_limit": 1, "depth": 2}}},
    },
}


def others(overrides: dict[str, Any], config: Mapping[str, Any] = OWN, fields: list[str] | None = None) -> None:
    check_overrides(overrides, config.get("private_keys", ()))
    check_overridable(config, overrides, "Own", fields)


def nested(*path: str, value: Any = 1) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


@pytest.mark.parametrize(
    "overrides",
    [
        nested("runs_in", value="thread"),
        nested("memory_limit", value=2**60),
        nested("subflows_config", "x", "memory_limit", value=2**60),
        nested("subflows_config", "x", "runs_in", value="thread"),
        nested("subflows_config", "y", "subflows_config", "z", "memory_limit", value=2**60),
        nested("subflows_config", "x", "user_id", value="a" * 52),
        nested("subflows_config", "x", "flow_endpoint"),
        nested("subflows_config", "x", "flow_class_name", value="os.system"),
        nested("subflows_config", "new", "user_id"),
        nested("subflows_config", value={}),
        nested("subflows_config", "x", value="a text"),
        nested("limits", value=3),
        nested("limits", "hosts", value=["evil"]),
        nested("limits", "tokens", "more"),
        nested("limits.tokens"),
        nested("model", value=[1]),
        nested("private_keys", value=[]),
        nested("overridable", value=["*"]),
        nested("nobody_has_this"),
        nested("limits", "_target_", value="os.system"),
        nested("limits", "deep", "_partial_"),
        nested("name", value={"_target_": "os.system"}),
        nested("model", value="${oc.env:HOME}"),
        nested("${model}"),
        nested("description", value=["${a}"]),
        nested("name", "key", value="secret"),
    ],
    ids=str,
)
def test_an_override_of_what_is_the_owners(overrides: dict[str, Any]) -> None:
    with pytest.raises(FlowConfigError):
        others(overrides)


def test_overrides_of_what_may_be() -> None:
    others({"model": "large", "limits": {"tokens": 5}, "name": "Mine", "subflows_config": {"x": {"prompt": "q"}}})
    others(nested("subflows_config", "y", "subflows_config", "z", "depth"))
    others(nested("anything", "below", value=[1]), {**OWN, "overridable": ["any*"]})


KEYS = st.sampled_from(["model", "limits", "tokens", "hosts", "runs_in", "subflows_config", "x", "prompt", "user_id"])
LEAVES = st.sampled_from([None, 1, "text", "${x}", [], ["${x}"], {}, True]) | st.integers()
OVERRIDES = st.dictionaries(
    KEYS | st.sampled_from(["_target_", "__x__", "flow_class_name", "name", "memory_limit", "a.b"]),
    st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8),
    max_size=4,
)
FREE = {("name",), ("description",), ("model",), ("limits", "tokens"), ("subflows_config", "x", "prompt")}
FREE |= {("subflows_config", "y", "subflows_config", "z", "depth")}


def leaves(value: Mapping[str, Any], at: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, item in value.items():
        found |= leaves(item, (*at, key)) if isinstance(item, dict) and item else {(*at, key): item}
    return found


@given(OVERRIDES)
def test_whatever_passes_changes_only_what_may_be_changed(overrides: dict[str, Any]) -> None:
    before = copy.deepcopy(overrides)
    try:
        others(overrides)
    except FlowConfigError:
        return
    assert overrides == before
    old, new = leaves(OWN), leaves(merge_config(OWN, overrides))
    changed = {path for path in old.keys() | new.keys() if old.get(path, ...) != new.get(path, ...)}
    assert all(path in FREE or path[0] in ("name", "description") for path in changed)
    assert "${" not in str(overrides)


CONFIGS = st.dictionaries(
    st.sampled_from([*OWN, "overridable", "input_interface", "flow_endpoint"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["", "local", "a:b", "process", "a" * 52]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "user_id", "a:b"]), inner),
        max_leaves=8,
    ),
)


@given(CONFIGS)
def test_a_config_is_valid_or_an_error_of_its_own(config: dict[str, Any]) -> None:
    try:
        validate_config(AtomicFlow, config)
    except FlowConfigError:
        return
    assert isinstance(config["name"], str) and isinstance(config["description"], str)


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!x {}"])
def test_yaml_that_would_make_objects(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coflows.flows.loading import resolve_flow_class

    module = f"yaml_attack_{abs(hash(tag))}"
    (tmp_path / f"{module}.py").write_text(
        "from coflows import AtomicFlow\nclass Bad(AtomicFlow):\n    def run(self, input_message): ...\n"
    )
    (tmp_path / "Bad.yaml").write_text(f"name: Bad\ndescription: Bad.\nvalue: {tag}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(FlowConfigError):
        resolve_flow_class(f"{module}.Bad").get_config()


CHECKS = [
    names.check_endpoint,
    names.check_dispatch_point,
    names.check_subflow_key,
    names.check_user_name,
    names.check_flow_id,
    names.check_run_id,
    names.check_token,
    names.check_user_id,
]
TEXTS = st.text(st.sampled_from("aZ09_-.:/*#\\\x00\n é"), max_size=70) | st.sampled_from(
    ["..", "a..b", "local", "x" * 65]
)


@given(st.sampled_from(CHECKS), TEXTS | st.none() | st.integers() | st.binary(max_size=5))
def test_names_that_would_be_more_than_names(check: Callable[[object], str], value: Any) -> None:
    try:
        name = check(value)
    except NameInvalidError as error:
        assert len(str(error)) < 400 and "\n" not in str(error)
        return
    assert name == value and 0 < len(name) <= 64
    assert not set(name) & set(":/*#\\\x00\n é") and ".." not in name and not name.startswith(".")
    path = MountPath(name, "local", "id")
    assert parse_mount_key(path.key("init")) == (path, "init")


class Tuned(AtomicFlow):
    """Lets others set what its Config has, and nothing else of it."""

    class Config(BaseModel):
        temperature: float = Field(0.5, ge=0, le=1)
        prompts: dict[str, str] = {}

    default_config = {"name": "Tuned", "description": "Has a Config.", "prompts": {"a": "b"}, "price": 3}

    def run(self, input_message: Any) -> dict[str, Any]:
        return {key: self.flow_config[key] for key in ("temperature", "prompts", "price")}


def test_a_config_model_bounds_what_others_set(users: Users) -> None:
    owner, client = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Tuned", "tuned")
    over = {"temperature": 0.9, "prompts": {"c": "d"}}
    flow = get_flow_instance(client, "tuned", owner.user_id, config_overrides=over)
    assert flow.ask({}, TIMEOUT) == {"temperature": 0.9, "prompts": {"a": "b", "c": "d"}, "price": 3}
    assert get_flow_instance(client, "tuned", owner.user_id).ask({}, TIMEOUT)["temperature"] == 0.5
    for bad in ({"temperature": 7}, {"temperature": "hot"}, {"price": 0}, {"prompts": {"c": 1}}, {"prompts": 1}):
        with pytest.raises(CoflowsError) as caught:
            get_flow_instance(client, "tuned", owner.user_id, config_overrides=bad)
        assert next(iter(bad)) in str(caught.value)
    assert get_flow_instance(owner, "tuned", config_overrides={"price": 0}).ask({}, TIMEOUT)["price"] == 0


def test_the_values_of_a_singleton_cannot_be_guessed(users: Users) -> None:
    """Which of his overrides are ignored would tell another user whether he has guessed the owner's."""
    owner, client = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Tuned", "one", singleton=True)
    get_flow_instance(owner, "one", config_overrides={"price": 12345})
    for guess in (1, 12345):
        with pytest.warns(IgnoredConfigWarning, match="ignored: price"):
            get_flow_instance(client, "one", owner.user_id, config_overrides={"price": guess})


def test_the_owner_overrides_all_but_classes(users: Users) -> None:
    (owner,) = users(1)
    serve_flow(owner, f"{__name__}.Tuned", "tuned")
    get_flow_instance(owner, "tuned", config_overrides={"price": 1, "runs_in": "process", "memory_limit": 2**30})
    for over in (nested("_target_"), nested("a", "_target_"), nested("subflows_config", "x", "flow_class_name")):
        with pytest.raises(FlowConfigError):
            get_flow_instance(owner, "tuned", config_overrides=over)
