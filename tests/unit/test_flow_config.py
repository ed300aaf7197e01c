"""Configs: merged along the class hierarchy, from YAML and class attributes, checked, compared."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflows import AtomicFlow, CompositeFlow, Flow, FlowMessage
from coflows.errors import FlowConfigError
from coflows.flows.config import (
    SubflowSpec,
    deep_merge,
    differing_keys,
    merge_config,
    subflow_specs,
)
from coflows.flows.overrides import check_no_class, check_overridable, check_overrides

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy."""

KEYS = st.sampled_from(["a", "b", "c", "name"])
LEAVES = st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
CONFIGS = st.dictionaries(
    KEYS, st.recursive(LEAVES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=8), max_size=4
)
USER = "a" * 52


class Silent(Flow):
    """Says nothing; the tests below are about configs."""

    def run(self, input_message: FlowMessage) -> None:
        return None


def refused(call: Any, *texts: str) -> None:
    """``call`` raises a FlowConfigError that has these texts and a hint."""
    with pytest.raises(FlowConfigError) as caught:
        call()
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert caught.value.code == "flow_config" and caught.value.hint


# -- merging and comparing -------------------------------------------------------------------------------------------


@UNTIMED
@given(CONFIGS, CONFIGS)
def test_merging_leaves_its_inputs_alone_and_shares_nothing(base: dict[str, Any], over: dict[str, Any]) -> None:
    before = copy.deepcopy((base, over))
    merged = deep_merge(base, over)
    stack: list[Any] = [merged]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            stack += value.values()
            value["added"] = 1
        elif isinstance(value, list):
            value.append(1)
    assert (base, over) == before


@UNTIMED
@given(CONFIGS, CONFIGS, CONFIGS)
def test_merging_is_associative_with_an_empty_config_as_neutral(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]
) -> None:
    assert deep_merge(one, {}) == deep_merge({}, one) == deep_merge(one, one) == one
    # A mapping that replaces a plain value which replaced a mapping does not bring the first one back.
    if not _shapes_differ(one, two) and not _shapes_differ(two, three) and not _shapes_differ(one, three):
        assert deep_merge(deep_merge(one, two), three) == deep_merge(one, deep_merge(two, three))


def _shapes_differ(old: Any, new: Any) -> bool:
    if isinstance(old, dict) and isinstance(new, dict):
        return any(_shapes_differ(old[key], new[key]) for key in old.keys() & new.keys())
    return isinstance(old, dict) or isinstance(new, dict)


@UNTIMED
@given(CONFIGS, CONFIGS)
def test_nothing_differs_exactly_when_merging_changes_nothing(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert (differing_keys(old, new, ignore=()) == []) == (deep_merge(old, new) == old)


@UNTIMED
@given(CONFIGS, CONFIGS)
def test_differing_keys_are_those_of_the_new_config(old: dict[str, Any], new: dict[str, Any]) -> None:
    for dotted in differing_keys(old, new, ignore=()):
        value: Any = new
        for part in dotted.split("."):
            value = value[part]
    assert not [key for key in differing_keys(old, new) if key.split(".")[0] == "name"]


def test_other_values_are_copied_too() -> None:
    inside: list[int] = []
    assert deep_merge({"a": (inside,)}, {})["a"][0] is not inside


def test_name_and_description_only_aside_at_the_top() -> None:
    new = {"name": "other", "description": "other", "model": {"name": "large"}}
    assert differing_keys({"model": {"name": "small"}}, new) == ["model.name"]


def test_nobody_can_take_a_private_key_away() -> None:
    assert merge_config({"private_keys": ["a"]}, {"private_keys": []})["private_keys"] == ["a"]
    assert merge_config({"private_keys": ["a"]}, {"private_keys": ["b", "a"]})["private_keys"] == ["a", "b"]


def test_targets_are_dropped_at_any_depth() -> None:
    base, over = {"_target_": "x", "a": {"_target_": "y"}}, {"_target_": "w", "b": [{"_target_": "z", "c": 1}]}
    assert deep_merge(base, over) == {"a": {}, "b": [{"c": 1}]}


# -- the class hierarchy and its files -------------------------------------------------------------------------------


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A module with a small class hierarchy, in a folder of its own where a test may put YAML files."""
    (tmp_path / "family.py").write_text(
        "from coflows import AtomicFlow\n"
        "class Parent(AtomicFlow):\n"
        "    default_config = {'name': 'attribute', 'description': 'attribute', 'model': {'size': 1, 'speed': 1}}\n"
        "    def run(self, input_message):\n        return {}\n"
        "class Side:\n    default_config = {'side': True}\n"
        "class Child(Parent, Side):\n    default_config = {'model': {'speed': 2}}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("family")
    del sys.modules["family"]


def test_yaml_and_attributes_are_merged_base_first(module: Any, tmp_path: Path) -> None:
    (tmp_path / "Parent.yaml").write_text("_target_: anything\nname: parent file\nmodel: {size: 10, _target_: x}\n")
    (tmp_path / "Child.yaml").write_text("description: child file\nmodel: {colour: red}\n")
    assert module.Child.get_config(model={"colour": "blue"}) == {
        "private_keys": [],
        "side": True,
        "name": "parent file",
        "description": "child file",
        "model": {"size": 10, "speed": 2, "colour": "blue"},
    }
    assert module.Parent.get_config()["model"] == {"size": 10, "speed": 1}


def test_each_config_is_its_own(module: Any) -> None:
    module.Child.get_config()["model"]["size"] = 99
    config = module.Child.get_config()
    module.Child(flow_config=config).flow_config["model"]["size"] = 99
    assert config["model"]["size"] == module.Child.get_config()["model"]["size"] == 1


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("name: Child\ndescription: [open\n", "Child.yaml, line 3, column 1"),
        ("name: Child\n\tdescription: x\n", "Child.yaml, line 2, column 1"),
        ("name: 'open\n", "Child.yaml, line 2"),
        ("- a\n- b\n", "holds a list at its top level"),
        ("just text\n", "holds a str at its top level"),
        ("name: a\nswitch: {on: 1}\n", "key switch.True is read as bool"),
        ("!!python/object/apply:os.getcwd []\n", "Child.yaml, line 1, column 1"),
        ("a: \x00\n", "Child.yaml is not YAML"),
    ],
)
def test_a_bad_file_is_named_with_line_and_column(module: Any, tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "Child.yaml").write_text(text)
    refused(module.Child.get_config, str(tmp_path / "Child.yaml"), where)


def test_files_are_read_without_libyaml_too(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = module.Child.get_config()
    monkeypatch.delattr("yaml.CSafeLoader")
    assert module.Child.get_config() == quick


def test_a_file_that_is_not_utf8(module: Any, tmp_path: Path) -> None:
    (tmp_path / "Child.yaml").write_bytes(b"name: \xff\xfe\n")
    refused(module.Child.get_config, str(tmp_path / "Child.yaml"), "UTF-8")


def test_an_empty_file_says_nothing(module: Any, tmp_path: Path) -> None:
    (tmp_path / "Child.yaml").write_text("# to be written\n")
    assert module.Child.get_config()["name"] == "attribute"


@pytest.mark.parametrize("value", [None, "", "  ", 5])
@pytest.mark.parametrize("key", ["name", "description"])
def test_name_and_description_are_required(module: Any, tmp_path: Path, key: str, value: object) -> None:
    refused(lambda: module.Child.get_config(**{key: value}), "family.Child", repr(key), str(tmp_path / "Child.yaml"))


def test_a_class_that_has_the_attribute_is_told_to_use_it() -> None:
    class Attributed(AtomicFlow):
        default_config: ClassVar[dict[str, Any]] = {"name": "Attributed"}

    refused(Attributed.get_config, "'description'", "default_config of Attributed")


def test_a_class_without_a_file_is_told_to_use_the_attribute() -> None:
    made: Any = type("Made", (Silent,), {"__module__": "nowhere_at_all"})
    refused(made.get_config, "Made", "'name'", "default_config")


@pytest.mark.parametrize("key", ["input_interface", "output_interface", "private_keys", "overridable"])
@pytest.mark.parametrize("value", ["number", {"number": 1}, [1], [""]])
def test_interfaces_are_lists_of_keys(module: Any, key: str, value: object) -> None:
    refused(lambda: module.Child.get_config(**{key: value}), repr(key), "list of keys")


def test_default_config_must_be_a_dict() -> None:
    made: Any = type("Made", (Silent,), {"default_config": ["name"]})
    refused(made.get_config, "Made.default_config is a list")


# -- overrides -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "dotted"),
    [
        ({"_target_": "os.system"}, "'_target_'"),
        ({"subflows_config": {"first": {"_target_": "x"}}}, "'subflows_config.first._target_'"),
        ({"tools": [{"_partial_": True}]}, "'tools.0._partial_'"),
        ({"a": {"_": 1}}, "'a._'"),
        ({"a": {"b": "x ${oc.env:HOME} y"}}, "'a.b'"),
        ({"a": ["fine", "${x}"]}, "'a.1'"),
        ({"a": {3: "x"}}, "a.3"),
        ([("a", 1)], "list"),
    ],
)
def test_an_override_is_data_alone(overrides: Any, dotted: str) -> None:
    refused(lambda: check_overrides(overrides), dotted)


def test_get_config_refuses_such_an_override_too(module: Any) -> None:
    refused(lambda: module.Child.get_config(model={"_target_": "x"}), "model._target_")
    refused(lambda: module.Child.instantiate_from_default_config(model="${x}"), "model")


def test_an_override_that_contains_itself() -> None:
    endless: dict[str, Any] = {}
    endless["again"] = endless
    refused(lambda: check_overrides(endless), "again.again")


def test_overrides_may_be_called_anything_else(module: Any) -> None:
    check_overrides({"_x": 1, "x_": {"$": "$ {x}"}, "n": None, "l": [1, [2]]})
    assert module.Child.get_config(cls=1, self=2)["cls"] == 1


def test_a_private_override_is_refused_at_any_depth() -> None:
    refused(lambda: check_overrides({"backend": {"api_key": "geheim"}}, ["api_key"]), "backend.api_key", "secret")
    with pytest.raises(FlowConfigError) as caught:
        check_overrides({"api_key": "geheim"}, ["api_key"])
    assert "geheim" not in str(caught.value)


def test_others_override_what_the_owner_lists() -> None:
    config = {"overridable": ["model", "prompt.style", "subflows_config.*.user_id"], "letters": 3}

    def others(overrides: dict[str, Any]) -> None:
        check_overridable(config, overrides, "Child")

    others({"name": "x", "description": "y", "model": {"size": 1}, "prompt": {"style": "terse"}})
    others({"subflows_config": {"a": {"user_id": "x"}, "b": {"user_id": "y"}}})
    refused(
        lambda: others({"prompt": {"text": "x"}, "model": 1}),
        "of Child does not let others override: prompt.text.",
        "may override: description, model, name, prompt.style, subflows_config.*.user_id.",
        "`overridable` in Child.yaml",
    )
    refused(lambda: others({"overridable": ["all"]}), "override: overridable.")
    refused(lambda: others({"models": 1, "promptly": {"style": 1}}), "models, promptly.style")
    refused(lambda: others({"letters": 4}), "override: letters.")
    refused(lambda: others({"subflows_config": {"a": {"flow_endpoint": "x"}}}), "subflows_config.a.flow_endpoint")
    refused(lambda: others({"prompt": "x"}), "override: prompt.")


@given(st.dictionaries(st.sampled_from(["a", "b", "overridable"]), st.integers() | st.just({}), min_size=1))
def test_nothing_can_be_overridden_where_nothing_is_listed(overrides: dict[str, Any]) -> None:
    refused(lambda: check_overridable({"a": 1, "overridable": []}, overrides, "Child"), "override: ")
    refused(lambda: check_overridable({"a": 1, "overridable": "ab"}, overrides, "Child"), "override: ")


def test_by_default_others_override_plain_values_but_not_where_subflows_come_from() -> None:
    source = {"user_id": "local", "flow_endpoint": "x", "flow_class_name": "X"}
    config = {
        "name": "n",
        "letters": 6,
        "style": None,
        "runs_in": "process",
        "memory_limit": 1,
        "tools": ["a"],
        3: "x",
        "subflows_config": {"next": {**source, "start": 1, "subflows_config": {"deep": {**source, "start": 1}}}},
    }

    def others(overrides: dict[str, Any]) -> None:
        check_overridable(config, overrides, "Child")

    deep = {"start": 2, "subflows_config": {"deep": {"start": 3}}}
    others({"name": "x", "description": "y", "letters": "seven", "style": 1.5, "subflows_config": {"next": deep}})
    for key in ("user_id", "flow_endpoint"):
        for subflow in ({key: "x"}, {"subflows_config": {"deep": {key: "x"}}}):
            refused(lambda overrides=subflow: others({"subflows_config": {"next": overrides}}), f".{key}.")
    for overrides in ({"runs_in": "thread"}, {"memory_limit": 2}, {"tools": "b"}, {"private_keys": []}, {"new": 1}):
        refused(lambda overrides=overrides: others(overrides), f"override: {next(iter(overrides))}.")
    for overrides in (
        {"letters": [1]},
        {"letters": {"a": 1}},
        {"subflows_config": {}},
        {"subflows_config": {"new": {}}},
    ):
        refused(lambda overrides=overrides: others(overrides), "does not let others override")


def test_nobody_overrides_what_class_a_subflow_is_of() -> None:
    overrides = {"subflows_config": {"next": {"subflows_config": {"deep": {"flow_class_name": "os.system"}}}}}
    refused(lambda: check_no_class(overrides), "'subflows_config.next.subflows_config.deep.flow_class_name'")
    refused(lambda: check_overridable({"overridable": ["*"]}, overrides, "Child"), "chooses a class")
    check_no_class({"flow_class_name": "the flow's own", "subflows_config": {"next": {"user_id": "x"}}})


# -- subflows --------------------------------------------------------------------------------------------------------


def test_specs_are_what_to_fetch_and_with_what() -> None:
    config = {
        "subflows_config": {
            "first": {
                "_target_": "x",
                "user_id": "local",
                "flow_endpoint": "one",
                "flow_class_name": "Module.One",
                "name": "First",
                "model": {"_target_": "y", "size": 1},
            },
            "second": {"user_id": USER, "flow_endpoint": "two"},
        }
    }
    assert subflow_specs(config) == {
        "first": SubflowSpec("local", "one", "Module.One", {"name": "First", "model": {"size": 1}}),
        "second": SubflowSpec(USER, "two", None, {}),
    }
    assert subflow_specs({}) == {}


class Pair(CompositeFlow):
    default_config: ClassVar[dict[str, Any]] = {
        "name": "Pair",
        "description": "Two subflows.",
        "subflows_config": {"one": {"user_id": "local", "flow_endpoint": "one"}},
    }

    def run(self, input_message: FlowMessage) -> None:
        return None


@pytest.mark.parametrize(
    ("spec", "texts"),
    [
        ({"flow_endpoint": "x"}, ["'two'", "'user_id'", "subflows_config.two.user_id"]),
        ({"user_id": "local"}, ["'two'", "'flow_endpoint'", "subflows_config.two.flow_endpoint"]),
        ({"user_id": "", "flow_endpoint": "x"}, ["'user_id'"]),
        ({"user_id": "bob", "flow_endpoint": "x"}, ["'two'", "User id 'bob'"]),
        ({"user_id": 7, "flow_endpoint": "x"}, ["'two'", "'user_id'", "int"]),
        ({"user_id": "local", "flow_endpoint": "a:b"}, ["'two'", "Endpoint name 'a:b'"]),
        ({"user_id": "local", "flow_endpoint": "x", "flow_class_name": 3}, ["'two'", "flow_class_name"]),
        ("one", ["'two'", "str"]),
        (None, ["'two'", "NoneType"]),
    ],
)
def test_an_incomplete_subflow_is_named(spec: object, texts: list[str]) -> None:
    file = str(Path(__file__).with_name("Pair.yaml"))
    refused(lambda: Pair.get_config(subflows_config={"two": spec}), "Pair", file, *texts)


def test_a_subflow_key_that_cannot_be_a_key() -> None:
    refused(lambda: Pair.get_config(subflows_config={"a:b": {}}), "Subflow key 'a:b'", "Pair")
    refused(lambda: Pair.get_config(subflows_config=["one"]), "subflows_config", "list", "Pair")


def test_a_composite_needs_subflows_and_an_atomic_flow_has_none() -> None:
    class Lonely(CompositeFlow):
        default_config: ClassVar[dict[str, Any]] = {"name": "n", "description": "d", "subflows_config": {}}

        def run(self, input_message: FlowMessage) -> None:
            return None

    class Crowded(AtomicFlow):
        default_config: ClassVar[dict[str, Any]] = Pair.default_config

        def run(self, input_message: FlowMessage) -> None:
            return None

    refused(Lonely.get_config, "Lonely", "subflows_config")
    refused(Crowded.get_config, "Crowded", "one", "CompositeFlow")
