"""Serve, unserve, delete; fetch trees of instances; what goes wrong is told and leaves nothing behind."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coflows import Client
from coflows.errors import (
    CallTimeoutError,
    EndpointNotFoundError,
    EndpointTakenError,
    FlowClassError,
    FlowConfigError,
    FlowCycleError,
    FlowInstanceError,
    InstanceNotFoundError,
    SerializationError,
)
from coflows.serving import (
    IgnoredConfigWarning,
    delete_all_flow_endpoints,
    delete_flow_endpoint,
    delete_flow_instance,
    get_flow_instance,
    is_flow_served,
    recursive_delete_flow_instance,
    recursive_serve_flow,
    serve_flow,
    unserve_flow,
)
from tests.flow_classes import End
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
Users = Callable[..., list[Client]]
CLASSES = "tests.flow_classes"


def start(users: Users, number: int, broker_url: str | None = None) -> list[Client]:
    clients = users(number, broker_url)
    for cl in clients:
        run_dispatch_worker_thread(cl)
        run_get_instance_worker_thread(cl)
    return clients


def at(cl: Client, **more: Any) -> dict[str, Any]:
    return {"user_id": cl.user_id, **more}


def instances(cl: Client) -> list[str]:
    return cl.read_keys("instance_metadata:")


def test_serve_unserve_and_delete(users: Users, broker_url: str) -> None:
    (cl,) = start(users, 1, broker_url)
    assert not is_flow_served(cl, "counter")
    assert serve_flow(cl, "CounterFlowModule.CounterFlow", "counter")
    assert is_flow_served(cl, "counter")
    flow = get_flow_instance(cl, "counter")
    assert flow.ask({}, TIMEOUT) == {"count": 1}

    assert unserve_flow(cl, "counter") and not unserve_flow(cl, "counter")
    assert not is_flow_served(cl, "counter")
    with pytest.raises(EndpointNotFoundError, match="counter"):
        get_flow_instance(cl, "counter")
    assert flow.ask({}, TIMEOUT) == {"count": 2}, "instances live on"

    assert serve_flow(cl, "CounterFlowModule.CounterFlow", "counter")
    other = get_flow_instance(cl, "counter")
    assert other.get_instance_id() != flow.get_instance_id()
    delete_flow_instance(cl, flow.get_instance_id())
    with pytest.raises(InstanceNotFoundError):
        flow.ask({}, TIMEOUT)
    with pytest.raises(InstanceNotFoundError):
        delete_flow_instance(cl, flow.get_instance_id())
    assert other.ask({}, TIMEOUT) == {"count": 1}

    assert delete_flow_endpoint(cl, "counter") and not delete_flow_endpoint(cl, "counter")
    assert cl.read_keys("flows:") == [] and instances(cl) == [] and cl.read_keys("done:") == []
    with pytest.raises(InstanceNotFoundError):
        other.ask({}, TIMEOUT)


def test_an_endpoint_that_serves_something_else_is_taken(users: Users) -> None:
    (cl,) = users(1)
    assert serve_flow(cl, "EchoFlowModule.EchoFlow", "echo", "fast", singleton=True)
    for again in ({}, {"singleton": True}, {"dispatch_point": "fast"}):
        assert not serve_flow(cl, "EchoFlowModule.EchoFlow", "echo", **again)
    for act in (serve_flow, recursive_serve_flow):
        with pytest.raises(EndpointTakenError, match=r"EchoFlow at fast, singleton.*coflows unserve echo"):
            act(cl, "CounterFlowModule.CounterFlow", "echo")
    for other in ({"parallel_dispatch": True}, {"dispatch_point": "slow"}):
        with pytest.raises(EndpointTakenError):
            serve_flow(cl, "EchoFlowModule.EchoFlow", "echo", **other)
    assert unserve_flow(cl, "echo") and serve_flow(cl, "CounterFlowModule.CounterFlow", "echo")
    with pytest.raises(EndpointTakenError):
        serve_flow(cl, "CounterFlowModule.CounterFlow", "echo", singleton=True)


def test_a_class_and_a_dict_stand_for_themselves(users: Users) -> None:
    (cl,) = start(users, 1)
    assert serve_flow(cl, End, "end") and not serve_flow(cl, f"{CLASSES}.End", "end")
    assert not recursive_serve_flow(cl, End, "end")
    flow = get_flow_instance(cl, "end")
    data = {"id": 1}
    assert flow.get_reply_future(data).get_data(TIMEOUT) == flow.ask(data, TIMEOUT)
    flow.send_message(data)
    with pytest.raises(SerializationError, match="not a str"):
        flow.send_message("hello")  # type: ignore[arg-type]

    class Local(End):
        pass

    with pytest.raises(FlowClassError, match="top level of its module"):
        serve_flow(cl, Local, "local")


def test_delete_all(users: Users) -> None:
    (cl,) = start(users, 1)
    for name in ("a", "b", "b.c"):
        serve_flow(cl, "EchoFlowModule.EchoFlow", name)
        get_flow_instance(cl, name)
    assert delete_all_flow_endpoints(cl) == 3
    assert cl.read_keys("flows:") == [] and instances(cl) == []


def test_recursive_serve(users: Users) -> None:
    (cl,) = start(users, 1)
    name = "ReverseNumberFlowModule.ReverseNumberSequentialFlow"
    assert recursive_serve_flow(cl, name, "twice") and not recursive_serve_flow(cl, name, "twice")
    assert is_flow_served(cl, "twice") and is_flow_served(cl, "reverse_number_atomic")
    flow = get_flow_instance(cl, "twice")
    assert flow.ask({"number": 120}, TIMEOUT) == {"output_number": 12}
    recursive_delete_flow_instance(cl, flow.get_instance_id())
    assert instances(cl) == []


def test_recursive_delete_over_two_owners(users: Users, broker_url: str) -> None:
    owner, client = start(users, 2, broker_url)
    serve_flow(owner, f"{CLASSES}.End", "end")
    serve_flow(client, f"{CLASSES}.Chain", "chain")
    flow = get_flow_instance(client, "chain", config_overrides={"subflows_config": {"next": at(owner)}})
    assert flow.ask({}, TIMEOUT) == {"depth": 1}
    assert len(instances(owner)) == len(instances(client)) == 1
    recursive_delete_flow_instance(client, flow.get_instance_id())
    assert instances(owner) == instances(client) == []

    direct = get_flow_instance(client, "end", user_id=owner.user_id)
    assert len(instances(owner)) == 1
    recursive_delete_flow_instance(client, direct.get_instance_id())
    assert instances(owner) == []


def test_a_singleton_is_one_instance_under_many_fetches(users: Users, broker_url: str) -> None:
    owner, client = start(users, 2, broker_url)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter", singleton=True)
    with ThreadPoolExecutor(50) as pool:
        fetched = [
            pool.submit(get_flow_instance, cl, "counter", owner.user_id) for cl in (owner, client) for _ in range(25)
        ]
        ids = {one.result(TIMEOUT).get_instance_id() for one in fetched}
    assert len(ids) == 1 == len(instances(owner))


def test_a_singletons_ignored_overrides_are_told(users: Users) -> None:
    owner, client = start(users, 2)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo", singleton=True)
    first = get_flow_instance(owner, "echo", config_overrides={"style": {"loud": True}})
    with pytest.warns(IgnoredConfigWarning, match=r"style\.loud") as told:
        second = get_flow_instance(
            client, "echo", owner.user_id, config_overrides={"style": {"loud": False}, "name": "Mine"}
        )
    assert "name" not in str(told[0].message).partition("ignored:")[2]
    assert first.get_instance_id() == second.get_instance_id()


def test_repeating_what_a_singleton_has_is_no_difference(users: Users, recwarn: pytest.WarningsRecorder) -> None:
    (owner,) = start(users, 1)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo", singleton=True)
    get_flow_instance(owner, "echo", config_overrides={"style": "loud"})
    get_flow_instance(owner, "echo", config_overrides={"style": "loud", "private_keys": []})
    assert not [one for one in recwarn if issubclass(one.category, IgnoredConfigWarning)]


def test_another_user_overrides_what_the_owner_lets_him(users: Users) -> None:
    owner, client = start(users, 2)
    serve_flow(owner, f"{CLASSES}.Two", "two")
    for name in ("left", "right", "elsewhere"):
        serve_flow(owner, f"{CLASSES}.End", name)
    overrides = {"name": "Mine", "subflows_config": {"left": {"flow_endpoint": "elsewhere"}}}
    with pytest.raises(FlowConfigError, match=r"override: subflows_config\.left\.flow_endpoint\..*Two\.yaml"):
        get_flow_instance(client, "two", owner.user_id, config_overrides=overrides)
    assert instances(owner) == []
    get_flow_instance(client, "two", owner.user_id, config_overrides={"name": "Mine"})
    get_flow_instance(owner, "two", config_overrides=overrides)
    overrides["subflows_config"]["left"] = {"flow_class_name": f"{CLASSES}.Chain"}
    with pytest.raises(FlowConfigError, match="chooses a class"):
        get_flow_instance(owner, "two", config_overrides=overrides)


def test_private_overrides_are_refused_and_not_stored(users: Users) -> None:
    (owner,) = start(users, 1)
    serve_flow(owner, f"{CLASSES}.Private", "private")
    with pytest.raises(FlowConfigError, match="api_key"):
        get_flow_instance(owner, "private", config_overrides={"backend": {"api_key": "canary-4712"}})
    assert not any(b"canary-4712" in entry.value for entry in owner.store.scan())


def test_private_keys_do_not_leave_for_subflows(users: Users) -> None:
    (owner,) = start(users, 1)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "end")
    serve_flow(owner, f"{CLASSES}.Careless", "careless")
    assert get_flow_instance(owner, "careless").ask({}, TIMEOUT) == {"echo": {"a": 1}}


def test_the_size_of_a_tree_is_bounded(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    (cl,) = start(users, 1)
    monkeypatch.setattr("coflows.tree.MAX_TREE", 2)
    for name in ("left", "right"):
        serve_flow(cl, f"{CLASSES}.End", name)
    serve_flow(cl, f"{CLASSES}.Two", "two")
    with pytest.raises(FlowInstanceError, match="more than 2 instances"):
        get_flow_instance(cl, "two")
    assert instances(cl) == []


def test_users_who_need_each_others_flows(users: Users, broker_url: str) -> None:
    a, b = start(users, 2, broker_url)
    serve_flow(a, f"{CLASSES}.End", "end")
    serve_flow(b, f"{CLASSES}.Chain", "middle")
    serve_flow(a, f"{CLASSES}.Chain", "top")
    overrides = {
        "subflows_config": {"next": at(b, flow_endpoint="middle", subflows_config={"next": at(a, flow_endpoint="end")})}
    }
    assert get_flow_instance(a, "top", config_overrides=overrides).ask({}, TIMEOUT) == {"depth": 2}


def test_a_cycle_is_refused_and_printed(users: Users) -> None:
    a, b = start(users, 2)
    serve_flow(a, f"{CLASSES}.Chain", "one")
    serve_flow(b, f"{CLASSES}.Chain", "two")
    inner = at(b, flow_endpoint="two", subflows_config={"next": at(a, flow_endpoint="one")})
    with pytest.raises(FlowCycleError) as caught:
        get_flow_instance(a, "one", config_overrides={"subflows_config": {"next": inner}})
    text = str(caught.value)
    assert f"one@{a.user_id[:8]} -> two@{b.user_id[:8]} -> one@{a.user_id[:8]}" in text and "subflow 'next'" in text
    assert instances(a) == instances(b) == []


def test_a_local_cycle_is_refused(users: Users) -> None:
    (cl,) = start(users, 1)
    serve_flow(cl, f"{CLASSES}.Chain", "end")
    with pytest.raises(FlowCycleError, match="end@"):
        get_flow_instance(cl, "end")


def test_when_a_sibling_fails_the_others_are_taken_back(users: Users) -> None:
    a, b, c = start(users, 3)
    serve_flow(b, f"{CLASSES}.End", "left")
    serve_flow(c, f"{CLASSES}.End", "other")
    serve_flow(a, f"{CLASSES}.Two", "two")
    b_released = threading.Event()
    b.store.watch("instance_metadata:", lambda _keys: None if instances(b) else b_released.set())
    with pytest.raises(FlowInstanceError) as caught:
        get_flow_instance(a, "two", config_overrides={"subflows_config": {"left": at(b), "right": at(c)}})
    assert "subflow 'right'" in str(caught.value) and c.user_id in str(caught.value)
    assert "endpoint_not_found" in str(caught.value) and "right" in caught.value.message
    assert b_released.wait(TIMEOUT) and instances(a) == instances(b) == []


def test_without_a_get_instance_worker_the_fetch_times_out_and_is_withdrawn(users: Users) -> None:
    owner, client = users(2)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo")
    with pytest.raises(CallTimeoutError, match="get_instance worker"):
        get_flow_instance(client, "echo", owner.user_id, timeout=0.5)
    mounted = threading.Event()
    owner.store.watch("instance_metadata:", lambda _keys: mounted.set())
    withdrawn = threading.Event()
    owner.store.watch("released:", lambda _keys: withdrawn.set())
    run_get_instance_worker_thread(owner)
    assert withdrawn.wait(TIMEOUT)
    assert get_flow_instance(client, "echo", owner.user_id).get_instance_id()
    assert len(instances(owner)) == 1


def test_a_foreign_instance_is_none(users: Users) -> None:
    """Who did not mount an instance is told the same as if there were none."""
    owner, client, stranger = start(users, 3)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo")
    flow = get_flow_instance(client, "echo", owner.user_id)
    with pytest.raises(InstanceNotFoundError) as foreign:
        stranger.proxy(flow.address).ask({}, TIMEOUT)
    assert flow.ask({"a": 1}, TIMEOUT) == {"a": 1}
    delete_flow_instance(owner, flow.get_instance_id())
    with pytest.raises(InstanceNotFoundError) as missing:
        stranger.proxy(flow.address).ask({}, TIMEOUT)
    assert str(foreign.value) == str(missing.value)


def test_initial_state_and_overrides_reach_the_flow(users: Users) -> None:
    owner, client = start(users, 2)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    flow = get_flow_instance(client, "counter", owner.user_id, initial_state={"count": 41})
    assert flow.ask({}, TIMEOUT) == {"count": 42}


def test_deep_and_wide_trees_over_many_users(users: Users) -> None:
    owners = start(users, 4)
    top = owners[0]
    for cl in owners:
        serve_flow(cl, f"{CLASSES}.End", "left")
        serve_flow(cl, f"{CLASSES}.End", "right")
    serve_flow(top, f"{CLASSES}.Two", "two")
    overrides = {"subflows_config": {"left": at(owners[1]), "right": at(owners[2])}}
    flow = get_flow_instance(top, "two", config_overrides=overrides)
    assert flow.ask({}, TIMEOUT) == {"left": {"depth": 0}, "right": {"depth": 0}}
    assert uuid.UUID(flow.get_instance_id())
