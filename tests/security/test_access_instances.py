"""Attacks on endpoints and instances of others: who may fetch, who may send, and what a refusal tells."""

from __future__ import annotations

import threading
import uuid
from dataclasses import replace

import pytest

from coflows.access.rules import Access, Mode
from coflows.broker.topology import door_queue
from coflows.errors import (
    AccessDeniedError,
    ConfigurationError,
    EndpointTakenError,
    FlowInstanceError,
    InstanceNotFoundError,
    RemoteFlowError,
)
from coflows.lines import Place
from coflows.model.address import InstanceAddress, partition_of
from coflows.model.calls import Call, Reply
from coflows.model.messages import new_message_id
from coflows.model.wire import Keep, Recall, Release
from coflows.policies import change_group, delete_group, get_flow_access, get_groups, set_flow_access
from coflows.proxy import FlowProxy
from coflows.serving import (
    delete_flow_endpoint,
    get_flow_instance,
    recursive_serve_flow,
    serve_flow,
    unserve_flow,
)
from tests.security import flows
from tests.security.world import FLOWS, TIMEOUT, World, becomes, refused_with, send_call


def unknown_to(flow: FlowProxy) -> InstanceAddress:
    """An address as that of the flow, in the same partition, of an instance that is not there."""
    while True:
        flow_id = str(uuid.uuid4())
        if flow.address.partition is None or partition_of(flow_id, 8) == flow.address.partition:
            return replace(flow.address, flow_id=flow_id)


def failure(reply: object) -> dict[str, object]:
    found = getattr(reply, "failure", None)
    assert found is not None, reply
    return found


# -- who may fetch ---------------------------------------------------------------------------------------------


def test_fetching_what_is_served_to_others(world: World) -> None:
    endpoint = world.serve("Tally", access=[world.bob.user_id])
    error = refused_with(AccessDeniedError, lambda: world.fetch(world.mallory, endpoint))
    assert endpoint in str(error) and error.hint
    flow = world.fetch(world.bob, endpoint)
    assert flow.ask({}, TIMEOUT)["count"] == 1
    refused_with(InstanceNotFoundError, lambda: world.mallory.proxy(flow.address).ask({}, TIMEOUT))


def test_staying_after_being_put_out_of_a_group(world: World) -> None:
    change_group(world.alice, "friends", add=[world.bob.user_id, world.mallory.user_id])
    endpoint = world.serve("Tally", access="group:friends")
    flow = world.fetch(world.mallory, endpoint)
    assert flow.ask({}, TIMEOUT)["count"] == 1
    assert change_group(world.alice, "friends", remove=[world.mallory.user_id]) == [world.bob.user_id]
    refused_with(AccessDeniedError, lambda: world.fetch(world.mallory, endpoint))
    becomes(AccessDeniedError, lambda: flow.ask({}, TIMEOUT))
    change_group(world.alice, "friends", add=[world.mallory.user_id])
    assert flow.ask({}, TIMEOUT)["count"] >= 2, "who is let in again need not wait for it"
    assert delete_group(world.alice, "friends") and not delete_group(world.alice, "friends")
    assert "friends" not in get_groups(world.alice)
    refused_with(AccessDeniedError, lambda: world.fetch(world.bob, endpoint))


def test_a_group_of_that_name_of_ones_own(world: World) -> None:
    change_group(world.mallory, "staff", add=[world.mallory.user_id])
    endpoint = world.serve("Tally", access="group:staff")
    refused_with(AccessDeniedError, lambda: world.fetch(world.mallory, endpoint))


def test_staying_after_the_rule_was_changed(world: World) -> None:
    endpoint = world.serve("Tally")
    flow = world.fetch(world.mallory, endpoint)
    flow.ask({}, TIMEOUT)
    set_flow_access(world.alice, endpoint, [world.bob.user_id])
    becomes(AccessDeniedError, lambda: flow.ask({}, TIMEOUT))
    set_flow_access(world.alice, endpoint, "everybody")
    assert flow.ask({}, TIMEOUT)["count"] >= 2


def test_a_rule_that_is_lost_when_it_is_served_again(world: World) -> None:
    """Unserved and served once more it is not open to all; another rule must be said."""
    endpoint = world.serve("Tally", access="grant")
    unserve_flow(world.alice, endpoint)
    assert serve_flow(world.alice, f"{FLOWS}.Tally", endpoint)
    refused_with(AccessDeniedError, lambda: world.fetch(world.mallory, endpoint))
    assert not serve_flow(world.alice, f"{FLOWS}.Tally", endpoint, access="grant")
    with pytest.raises(EndpointTakenError, match="coflows access"):
        serve_flow(world.alice, f"{FLOWS}.Tally", endpoint, access="everybody")
    assert get_flow_access(world.alice, endpoint).mode is Mode.GRANT
    delete_flow_endpoint(world.alice, endpoint)
    assert f"access:rules:{endpoint}" not in world.alice.read_keys("access:")


@pytest.mark.parametrize("rule", ["", "all", "group:", "group:a:b", "group:*", b"grant", {"a": 1}, 7, ["bob"]])
def test_a_rule_that_is_mistyped_lets_nobody_in(world: World, rule: object) -> None:
    name = f"mistyped-{new_message_id()[-8:]}"
    with pytest.raises((ConfigurationError, ValueError)):
        serve_flow(world.alice, f"{FLOWS}.Tally", name, access=rule)  # type: ignore[arg-type]
    assert world.alice.read_keys(f"flows:{name}") == []


def test_a_confused_deputy(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob may; what bob fetches, and asks, for mallory, alice can refuse."""
    strict = Access(Mode.USERS, frozenset([world.bob.user_id]), roots=True)
    inner = world.serve("Tally", access=strict)
    spec = {"user_id": world.alice.user_id, "flow_endpoint": inner}
    monkeypatch.setitem(flows.Deputy.default_config["subflows_config"], "next", spec)
    name = world.serve("Deputy", world.bob)
    with pytest.raises(FlowInstanceError, match="let you use"):
        world.fetch(world.mallory, name, world.bob)
    assert get_flow_instance(world.bob, name).ask({}, TIMEOUT)["root"] == world.bob.user_id
    set_flow_access(world.alice, inner, replace(strict, roots=False))
    flow = world.fetch(world.mallory, name, world.bob)
    reply = flow.ask({}, TIMEOUT)
    assert (reply["root"], reply["sender"]) == (world.mallory.user_id, world.bob.user_id)
    set_flow_access(world.alice, inner, strict)
    assert "let you use" in str(becomes(RemoteFlowError, lambda: flow.ask({}, TIMEOUT)))


# -- who may send ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"parallel_dispatch": True}, {"singleton": True, "access": "grant"}])
def test_a_foreign_flow_id_is_as_an_unknown_one(world: World, options: dict[str, object]) -> None:
    """Whatever is sent to it: the same error, in the same words."""
    endpoint = world.serve("Tally", **options)
    flow = get_flow_instance(world.alice, endpoint)
    flow.ask({}, TIMEOUT)
    mallory, there, nowhere = world.mallory, flow.address, unknown_to(flow)
    for make in (
        lambda address: Call(address.flow_id, {}),
        lambda address: Call(address.flow_id, {}, src_flow_id=address.flow_id),
        lambda address: Call(address.flow_id, {}, answers="1" * 32),
        lambda address: Call(address.flow_id, failure={"text": []}),
        lambda address: Call(address.flow_id, {}, chain=[1, 2, 3]),
    ):
        texts = set()
        for address in (there, nowhere):
            told = failure(send_call(mallory, address, make(address)))
            texts.add(str({**told, "text": str(told["text"]).replace(address.flow_id, "ID")}))
        assert len(texts) == 1, texts
    assert flow.ask({}, TIMEOUT)["count"] == (1 if options.get("parallel_dispatch") else 2)
    keys = [key for key in world.alice.read_keys() if nowhere.flow_id in key]
    assert keys == [], "a stranger leaves nothing"
    assert not [key for key in world.alice.read_keys("order:") if world.mallory.user_id in key]


def test_a_foreign_flow_id_that_is_busy(world: World) -> None:
    """How long a refusal takes does not tell that there is an instance in a turn."""
    flows.GATE.clear()
    flows.ENTERED.clear()
    flow = get_flow_instance(world.alice, world.serve("Busy"))
    running = flow.submit({})
    assert flows.ENTERED.wait(TIMEOUT)
    try:
        for address in (flow.address, unknown_to(flow)):
            told = failure(send_call(world.mallory, address, Call(address.flow_id, {})))
            assert told["code"] == "instance_not_found" and not running.done()
            with pytest.raises(InstanceNotFoundError):
                world.mallory.proxy(address).ask({}, TIMEOUT)
    finally:
        flows.GATE.set()
    assert running.get_data(TIMEOUT) == {}


def test_a_foreign_flow_id_and_a_gap_in_the_order(world: World) -> None:
    """Number 2 of a stream whose number 1 never comes waits for it where the sender has an instance, and only there."""
    flow = get_flow_instance(world.alice, world.serve("Tally"))
    session = world.mallory.session
    for answers in (None, "1" * 32):
        for address in (flow.address, unknown_to(flow)):
            message_id = new_message_id()
            waiting = session.expect(message_id, world.alice.user_id)
            call = Call(address.flow_id, {}, answers=answers, reply=session.reply_to)
            queue = world.mallory.proxy(address)._route.queue
            place = Place("ab" * 8, 2)
            session.post(queue, world.alice.user_id, message_id, session.encode(call), lambda _: None, place=place)
            assert failure(waiting.result(15))["code"] in ("instance_not_found", "access_denied")
    assert flow.ask({}, TIMEOUT)["count"] == 1


def test_giving_back_what_belongs_to_others(world: World) -> None:
    endpoint = world.serve("Tally")
    flow = world.fetch(world.bob, endpoint)
    mallory, owner = world.mallory, world.alice.user_id
    queue = door_queue(owner).name
    for flow_id in (flow.get_instance_id(), str(uuid.uuid4())):
        release = Release(request_id=new_message_id(), session=mallory.session.id, flow_ids=[flow_id])
        answer = mallory.session.request(queue, owner, release.request_id, release).result(TIMEOUT)
        assert answer.failure is None and answer.value is None, "it is not told whether there was one"
    mallory.session.send(queue, owner, new_message_id(), Keep(flow_ids=[flow.get_instance_id()])).result(TIMEOUT)
    assert flow.ask({}, TIMEOUT)["count"] == 1


def test_recalling_what_others_were_answered(world: World) -> None:
    endpoint = world.serve("Tally")
    flow = world.fetch(world.bob, endpoint)
    future = flow.submit({})
    future.get_data(TIMEOUT)
    message_id, session = future.reply.message_id, world.mallory.session
    told: list[Reply] = []
    with pytest.MonkeyPatch.context() as patch:
        came = threading.Semaphore(0)
        patch.setattr(session._waiting, "arrived", lambda _sender, reply: (told.append(reply), came.release()))
        for flow_id in (flow.get_instance_id(), unknown_to(flow).flow_id):
            recall = Recall(flow_id=flow_id, message_id=message_id, session=session.id)
            session.expect(message_id, world.alice.user_id)
            session.send(flow._route.queue, world.alice.user_id, new_message_id(), recall).result(TIMEOUT)
            assert came.acquire(timeout=TIMEOUT)
    assert told[0] == told[1] == Reply(message_id, pending=True, unknown=True)
    assert world.bob.reopen_future(future.key).get_data(TIMEOUT)["count"] == 1


def test_sending_to_another_partition_or_the_parallel_queue(world: World) -> None:
    """The way around the order, and around one turn at a time."""
    flow = world.fetch(world.mallory, world.serve("Tally"))
    for partition in (None, (flow.address.partition or 0) + 1):
        if partition == 8:
            partition = 0
        address = replace(flow.address, partition=partition)
        assert failure(send_call(world.mallory, address, Call(address.flow_id, {})))["code"] == "instance_not_found"
    assert flow.ask({}, TIMEOUT)["count"] == 1


def test_a_singleton_by_its_id(world: World) -> None:
    """It answers all who may fetch its endpoint, and nobody else who learns its id."""
    endpoint = world.serve("Tally", singleton=True, access=[world.bob.user_id, world.carol.user_id])
    flow = world.fetch(world.bob, endpoint)
    assert flow.ask({}, TIMEOUT)["count"] == 1
    assert world.fetch(world.carol, endpoint).ask({}, TIMEOUT)["count"] == 2
    error = refused_with(InstanceNotFoundError, lambda: world.mallory.proxy(flow.address).ask({}, TIMEOUT))
    nowhere = unknown_to(flow)
    other = refused_with(InstanceNotFoundError, lambda: world.mallory.proxy(nowhere).ask({}, TIMEOUT))
    assert str(error).replace(flow.address.flow_id, "") == str(other).replace(nowhere.flow_id, "")
    set_flow_access(world.alice, endpoint, "everybody")
    assert world.mallory.proxy(flow.address).ask({}, TIMEOUT)["count"] == 3


def test_a_subflow_by_its_id(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow's subflows answer the flow that holds them, and not who uses it."""
    inner = world.serve("Tally")
    spec = {"user_id": "local", "flow_endpoint": inner}
    monkeypatch.setitem(flows.Deputy.default_config["subflows_config"], "next", spec)
    flow = world.fetch(world.mallory, world.serve("Deputy"))
    assert flow.ask({}, TIMEOUT)["sender"] == world.alice.user_id
    (flow_id,) = (key.split(":")[4] for key in world.alice.read_keys(f"flows:{inner}:mounts:") if key.endswith(":init"))
    address = replace(flow.address, flow_endpoint=inner, flow_id=flow_id, partition=partition_of(flow_id, 8))
    refused_with(InstanceNotFoundError, lambda: world.mallory.proxy(address).ask({}, TIMEOUT))
    assert flow.ask({}, TIMEOUT)["count"] == 2


def test_subflows_left_open_when_all_are_served_at_once(world: World) -> None:
    outer = f"twice-{new_message_id()[-8:]}"
    flow_class = "ReverseNumberFlowModule.ReverseNumberSequentialFlow"
    recursive_serve_flow(world.alice, flow_class, outer, access="grant")
    for name in (outer, "reverse_number_atomic"):
        refused_with(AccessDeniedError, lambda: world.fetch(world.mallory, name))  # noqa: B023
    assert get_flow_instance(world.alice, outer).ask({"number": 120}, TIMEOUT) == {"output_number": 12}


def test_a_timer_of_somebody_elses(world: World) -> None:
    """A message in an instance's own name, which only its timers send."""
    flow = world.fetch(world.mallory, world.serve("Relay"))
    address = flow.address
    reply = send_call(world.mallory, address, Call(address.flow_id, {}, src_flow_id=address.flow_id))
    assert reply.data["root"] == world.mallory.user_id, "it is no timer: its name is not believed"
