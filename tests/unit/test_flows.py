"""What a flow author writes: config, state, interfaces."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from coflows import AtomicFlow, CompositeFlow, FlowMessage, KeyInterface
from coflows.errors import CoflowsError, FlowConfigError, FlowError
from coflows.flows.config import deep_merge, differing_keys
from coflows.flows.loading import resolve_flow_class


class Base(AtomicFlow):
    default_config: ClassVar[dict[str, Any]] = {"name": "Base", "description": "d", "model": {"a": 1, "b": 2}}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"a": self.flow_config["model"]["a"]}


class Derived(Base):
    default_config: ClassVar[dict[str, Any]] = {"name": "Derived", "model": {"b": 3}, "private_keys": ["api_key"]}


def test_config_is_merged_along_the_class_hierarchy() -> None:
    config = Derived.get_config(model={"c": 4})
    assert config["name"] == "Derived" and config["model"] == {"a": 1, "b": 3, "c": 4}
    assert Base.get_config()["model"] == {"a": 1, "b": 2}


def test_private_keys_stay_inside() -> None:
    flow = Derived.instantiate_from_default_config()
    flow.flow_state = {"api_key": "geheim", "n": 1}
    assert flow.get_flow_state() == {"n": 1}
    reply = flow.package_output_message(FlowMessage({}), {"api_key": "geheim", "deep": {"api_key": "geheim", "x": 1}})
    assert reply.data == {"deep": {"x": 1}} and "geheim" not in repr(flow)
    with pytest.raises(FlowConfigError, match="api_key"):
        from coflows.flows.overrides import check_overrides

        check_overrides({"api_key": "geheim"}, ["api_key"])


def test_a_flow_runs_without_a_worker_but_cannot_send() -> None:
    flow = Base.instantiate_from_default_config()
    message = FlowMessage({})
    assert flow.run(message) == {"a": 1}
    with pytest.raises(FlowError, match="worker"):
        flow.send_message(flow.package_output_message(message, {}))


def test_a_composite_names_its_subflows() -> None:
    flow = resolve_flow_class("ReverseNumberFlowModule.ReverseNumberSequentialFlow")
    assert issubclass(flow, CompositeFlow)
    specs = flow.get_config()["subflows_config"]
    assert set(specs) == {"first_reverse_flow", "second_reverse_flow"}
    with pytest.raises(CoflowsError, match="third"):
        _ = flow.instantiate_from_default_config().subflows["third"]


def test_key_interface_applies_its_steps_in_order() -> None:
    interface = KeyInterface(
        keys_to_rename={"a.b": "c"},
        keys_to_copy={"c": "d.e"},
        keys_to_set={"f": 3},
        additional_transformations=[lambda data: {**data, "f": data["f"] + 1}],
        keys_to_select=["c", "d", "f"],
        keys_to_delete=["c"],
    )
    data = {"a": {"b": 1}, "z": 0}
    assert interface(data) == {"d": {"e": 1}, "f": 4}
    assert interface(FlowMessage(data)) == {"d": {"e": 1}, "f": 4}
    assert data == {"a": {"b": 1}, "z": 0}


def test_key_interface_names_a_missing_key() -> None:
    with pytest.raises(CoflowsError, match=r"a\.b"):
        KeyInterface(keys_to_rename={"a.b": "c"})({"a": {}})


def test_merge_and_difference() -> None:
    assert deep_merge({"a": {"b": 1}}, {"a": {"c": 2}, "_target_": "x"}) == {"a": {"b": 1, "c": 2}}
    assert differing_keys({"a": {"b": 1}, "name": "x"}, {"a": {"b": 2, "c": 3}, "name": "y"}) == ["a.b", "a.c"]
