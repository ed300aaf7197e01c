"""KeyInterface: its steps, their order, dotted keys, and that it never changes what it is given."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflows import FlowMessage, KeyInterface
from coflows.errors import FlowConfigError, FlowError

UNTIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The machine may be busy."""

KEYS = st.sampled_from(["a", "b", "c"])
DATA = st.dictionaries(
    KEYS, st.recursive(st.integers(), lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6), max_size=3
)
PATHS = st.lists(KEYS, min_size=1, max_size=3).map(".".join)
NEW = st.lists(st.sampled_from(["x", "y"]), min_size=1, max_size=3).map(".".join)


def at(data: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        data = data[part]
    return data


def has(data: Any, dotted: str) -> bool:
    for part in dotted.split("."):
        if not isinstance(data, dict) or part not in data:
            return False
        data = data[part]
    return True


def test_steps_run_in_this_order() -> None:
    seen: list[dict[str, Any]] = []

    def note(data: dict[str, Any]) -> dict[str, Any]:
        seen.append(dict(data))
        return {**data, "noted": True}

    interface = KeyInterface(
        keys_to_delete=["set"],
        keys_to_select=["copied", "noted", "set"],
        additional_transformations=[note],
        keys_to_set={"set": 3, "renamed": 4},
        keys_to_copy={"renamed": "copied"},
        keys_to_rename={"old": "renamed"},
    )
    assert interface({"old": 1, "other": 2}) == {"copied": 1, "noted": True}
    assert seen == [{"other": 2, "renamed": 4, "copied": 1, "set": 3}]


def test_it_takes_a_message_too() -> None:
    message = FlowMessage({"output_number": 4321})
    assert KeyInterface(keys_to_rename={"output_number": "number"})(message) == {"number": 4321}
    assert message.data == {"output_number": 4321}


def test_keys_can_be_swapped() -> None:
    assert KeyInterface({"a": "b", "b": "a"})({"a": 1, "b": 2}) == {"a": 2, "b": 1}
    assert KeyInterface({"a": "a"})({"a": 1}) == {"a": 1}
    assert KeyInterface(keys_to_copy={"a": "b", "b": "a"})({"a": 1, "b": 2}) == {"a": 2, "b": 1}


def test_dotted_keys_reach_into_dicts_and_make_parents() -> None:
    data = {"a": {"b": {"c": 1}, "d": 2}}
    assert KeyInterface({"a.b.c": "x.y"})(data) == {"a": {"b": {}, "d": 2}, "x": {"y": 1}}
    assert KeyInterface(keys_to_select=["a.b.c"])(data) == {"a": {"b": {"c": 1}}}
    assert KeyInterface(keys_to_select=["a.d", "a"])(data) == data
    assert KeyInterface(keys_to_delete=["a.b", "a.x.y", "a.d.z", "q.r"])(data) == {"a": {"d": 2}}
    assert KeyInterface(keys_to_set={"a.d": 3, "e.f": 4})(data) == {"a": {"b": {"c": 1}, "d": 3}, "e": {"f": 4}}


@UNTIMED
@given(DATA, PATHS, NEW)
def test_renaming_there_and_back_changes_nothing(data: dict[str, Any], old: str, new: str) -> None:
    if has(data, old):
        renamed = KeyInterface({old: new})(data)
        assert at(renamed, new) == at(data, old) and not has(renamed, old)
        assert KeyInterface({new: old}, keys_to_delete=[new.split(".")[0]])(renamed) == data


@UNTIMED
@given(DATA, PATHS, NEW)
def test_a_missing_source_is_named(data: dict[str, Any], old: str, new: str) -> None:
    for interface in (
        KeyInterface({old: new}),
        KeyInterface(keys_to_copy={old: new}),
        KeyInterface(keys_to_select=[old]),
    ):
        if has(data, old):
            interface(data)
        else:
            with pytest.raises(FlowError) as caught:
                interface(data)
            assert f"{old!r} is not in the data" in str(caught.value) and caught.value.hint


@UNTIMED
@given(DATA, PATHS, NEW)
def test_its_input_stays_as_it_is_and_shares_nothing(data: dict[str, Any], source: str, target: str) -> None:
    def scribble(data: dict[str, Any]) -> dict[str, Any]:
        stack: list[Any] = [data]
        while stack:
            value = stack.pop()
            if isinstance(value, dict):
                stack += value.values()
                value["scribbled"] = True
        return data

    before = copy.deepcopy(data)
    scribble(KeyInterface(additional_transformations=[scribble])(data))
    if has(data, source):
        scribble(KeyInterface({source: target})(data))
        copied = KeyInterface(keys_to_copy={source: target})(data)
        kept = copy.deepcopy(at(copied, source))
        if isinstance(kept, dict):
            scribble(at(copied, target))
        assert at(copied, source) == kept, "a copy shares nothing with its source"
    assert data == before


@UNTIMED
@given(DATA, st.lists(PATHS, max_size=3))
def test_what_is_deleted_is_gone_and_the_rest_stays(data: dict[str, Any], paths: list[str]) -> None:
    result = KeyInterface(keys_to_delete=paths)(data)
    assert not any(has(result, path) for path in paths)
    again = KeyInterface(keys_to_delete=paths)(result)
    assert again == result


@UNTIMED
@given(DATA, st.lists(PATHS, min_size=1, max_size=3))
def test_what_is_selected_is_all_there_is(data: dict[str, Any], paths: list[str]) -> None:
    if all(has(data, path) for path in paths):
        result = KeyInterface(keys_to_select=paths)(data)
        assert all(at(result, path) == at(data, path) for path in paths)
        assert set(result) == {path.split(".")[0] for path in paths}


def test_a_value_that_is_set_is_new_each_time() -> None:
    value: dict[str, Any] = {"list": []}
    interface = KeyInterface(keys_to_set={"a": value})
    interface({})["a"]["list"].append(1)
    value["list"].append(2)
    assert interface({}) == {"a": {"list": []}}


def test_nothing_is_written_through_a_plain_value() -> None:
    with pytest.raises(FlowError, match=r"'a\.b\.c' cannot be written: 'a\.b' is a int"):
        KeyInterface(keys_to_set={"a.b.c": 1})({"a": {"b": 5}})


def test_a_transformation_gives_a_dict() -> None:
    with pytest.raises(FlowError, match="<lambda> gave NoneType"):
        KeyInterface(additional_transformations=[lambda data: None])({})  # type: ignore[arg-type,return-value]
    with pytest.raises(FlowError, match="not int"):
        KeyInterface()(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "arguments",
    [
        {"keys_to_rename": {"a": ""}},
        {"keys_to_rename": {"a.": "b"}},
        {"keys_to_copy": {".a": "b"}},
        {"keys_to_copy": {"a": 3}},
        {"keys_to_set": {"a..b": 1}},
        {"keys_to_set": ["a"]},
        {"keys_to_select": "abc"},
        {"keys_to_select": {"a": "b"}},
        {"keys_to_delete": [1]},
        {"additional_transformations": ["my.function"]},
    ],
)
def test_wrong_arguments_are_refused_when_it_is_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(FlowConfigError, match=next(iter(arguments))) as caught:
        KeyInterface(**arguments)
    assert caught.value.hint
