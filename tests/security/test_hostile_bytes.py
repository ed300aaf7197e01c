"""What no honest client sends: it goes to the dead letters, with its reason, and the worker lives on."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter

from coflows import Client, FlowMessage, resolution
from coflows.broker.topology import dispatch_queue, door_queue, session_queue
from coflows.codec.wire import decode, encode
from coflows.dead_letters import list_dead_letters, replay_dead_letters
from coflows.errors import AccessDeniedError, CallTimeoutError, InstanceNotFoundError, SerializationError
from coflows.identity.sealing import Item, seal, seal_items
from coflows.model.calls import Call, Reply
from coflows.model.messages import new_message_id
from coflows.model.wire import DoorPayload, Fetch, FetchItem, read_payload
from coflows.opened import PIECE
from coflows.resolution import derive_id
from coflows.serving import get_flow_instance, serve_flow
from coflows.tree_node import Mounted
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
Users = Callable[..., list[Client]]


@pytest.fixture
def served(users: Users, broker_url: str) -> tuple[Client, Client]:
    owner, client = users(2, broker_url)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    return owner, client


def letters(cl: Client, count: int) -> list[str]:
    """The reasons of the dead letters, once there are so many."""
    deadline = time.monotonic() + TIMEOUT
    while len(found := list_dead_letters(cl)) < count:
        assert time.monotonic() < deadline, found
    return [letter.reason for letter in found]


def test_garbage_goes_to_the_dead_letters(served: tuple[Client, Client]) -> None:
    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    queues = [dispatch_queue(owner.user_id, "coflows_dispatch", number).name for number in (None, 0, 1)]
    for queue in (*queues, door_queue(owner.user_id).name):
        client.broker.publish(queue, secrets.token_bytes(100))
    payload = b"\x93" * 200
    sealed = seal(client.identity, owner.user_id, new_message_id(), int(time.time()) + 60, payload)
    client.broker.publish(queues[0], sealed)
    reasons = letters(owner, 5)
    assert sorted(reason.partition(":")[0] for reason in reasons) == ["envelope"] * 4 + ["serialization"]
    assert flow.ask({}, TIMEOUT) == {"count": 1}, "the worker lives on"
    assert len(replay_dead_letters(owner)) == 1, "what opens"
    assert len(letters(owner, 5)) == 5, "they are no better the second time"


def test_what_cannot_be_read_in_an_envelope_of_many(served: tuple[Client, Client]) -> None:
    """Messages are read some at a time: the envelope is a dead letter, and what was worked off of it is not worked off
    again when that is replayed."""
    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    call = encode(Call(flow.get_instance_id(), {}).to_dict())
    items = [Item(new_message_id(), call if number != PIECE + 1 else b"\xc1") for number in range(3 * PIECE)]
    queue = dispatch_queue(owner.user_id, "coflows_dispatch", flow.address.partition).name
    client.broker.publish(queue, seal_items(client.identity, owner.user_id, int(time.time()) + 60, items))
    for _ in range(2):
        (reason,) = letters(owner, 1)
        assert reason.startswith("serialization"), reason
        assert flow.ask({"report": True}, TIMEOUT)["count"] <= 2 * PIECE + 2
        assert len(replay_dead_letters(owner)) == 1
    letters(owner, 1)
    assert flow.ask({}, TIMEOUT) == {"count": 2 * PIECE + 3}


def test_an_expired_message_is_not_worked_off(served: tuple[Client, Client]) -> None:
    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    call = client.session.encode(Call(flow_id=flow.get_instance_id(), data={}))
    sealed = seal(client.identity, owner.user_id, new_message_id(), int(time.time()) - 5, call)
    client.broker.publish(dispatch_queue(owner.user_id, "coflows_dispatch", flow.address.partition).name, sealed)
    assert "expired" in letters(owner, 1)[0]
    assert flow.ask({}, TIMEOUT) == {"count": 1}


def test_a_forged_reply_resolves_nothing(served: tuple[Client, Client], users: Users, broker_url: str) -> None:
    """Somebody who learned a message's id cannot answer it in the owner's place."""
    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    message = flow.package_input_message({})
    waiting = client.session.expect(message.message_id, owner.user_id)
    queue = session_queue(client.user_id, client.session.id).name
    forged = Reply(answers=message.message_id, value={"count": 666})
    client.session.send(queue, client.user_id, new_message_id(), forged).result(TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    assert not waiting.done()


def test_an_id_that_was_used_tells_nobody_but_its_sender(users: Users) -> None:
    """Rather than having sent again what somebody else was answered."""
    owner, client, stranger = users(3)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    serve_flow(owner, "CounterFlowModule.CounterFlow", "shared", singleton=True)
    own, shared = (get_flow_instance(client, name, owner.user_id) for name in ("counter", "shared"))
    used = FlowMessage({}, message_id=new_message_id())
    for flow, error in ((own, InstanceNotFoundError), (shared, AccessDeniedError)):
        assert flow.get_reply_future(used).get_data(TIMEOUT) == {"count": 1}
        with pytest.raises(error):
            stranger.proxy(flow.address).get_reply_future(used).get_data(TIMEOUT)
        assert flow.get_reply_future(used).get_data(TIMEOUT) == {"count": 1}


def test_a_push_reply_that_nobody_asked_for_is_refused(served: tuple[Client, Client]) -> None:
    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    call = Call(flow_id=flow.get_instance_id(), data={}, answers="1" * 32)
    queue = dispatch_queue(owner.user_id, "coflows_dispatch", flow.address.partition).name
    client.session.send(queue, owner.user_id, new_message_id(), call).result(TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"count": 1}


def test_a_failure_that_cannot_be_read_is_refused(served: tuple[Client, Client]) -> None:
    """Rather than worked off again and again, and all that came after it with it."""
    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    message_id = new_message_id()
    waiting = client.session.expect(message_id, owner.user_id)
    call = Call(flow_id=flow.get_instance_id(), failure={"text": []}, reply=client.session.reply_to)
    queue = dispatch_queue(owner.user_id, "coflows_dispatch", flow.address.partition).name
    client.session.send(queue, owner.user_id, message_id, call).result(TIMEOUT)
    failure = waiting.result(TIMEOUT).failure
    assert failure is not None and failure["code"] == "serialization"
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    assert owner.read_keys("attempts:") == []


def test_what_is_sent_to_no_instance_waits_for_nothing(served: tuple[Client, Client]) -> None:
    """Whoever makes up streams of instances that are not there takes no room in the worker's memory for long."""
    owner, client = served
    flow_id = "00000000-0000-0000-0000-000000000000"
    message_id = new_message_id()
    waiting = client.session.expect(message_id, owner.user_id)
    payload = encode(Call(flow_id=flow_id, data={}, reply=client.session.reply_to).to_dict())
    item = Item(message_id, payload, "ab" * 8, 1000)
    queue = dispatch_queue(owner.user_id, "coflows_dispatch", 0).name
    client.broker.publish(queue, seal_items(client.identity, owner.user_id, int(time.time()) + 60, [item]))
    failure = waiting.result(10).failure
    assert failure is not None and failure["code"] == "instance_not_found"


def test_a_message_through_another_partition_is_refused(served: tuple[Client, Client]) -> None:
    """It would run beside the instance's own turns."""
    from dataclasses import replace

    owner, client = served
    flow = get_flow_instance(client, "counter", user_id=owner.user_id)
    assert flow.address.partition is not None
    for partition in (None, (flow.address.partition + 1) % 8):
        with pytest.raises(InstanceNotFoundError):
            client.proxy(replace(flow.address, partition=partition)).ask({}, TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"count": 1}


def test_a_repeated_request_gives_the_same_instances(served: tuple[Client, Client]) -> None:
    owner, client = served
    request_id = new_message_id()
    fetch = Fetch(
        request_id=request_id,
        session=client.session.id,
        items=[FetchItem(key=key, flow_endpoint="counter") for key in ("a", "b")],
        deadline=time.time() + TIMEOUT,
    )
    answers = []
    for _ in range(2):
        door = door_queue(owner.user_id).name
        reply = client.session.request(door, owner.user_id, new_message_id(), fetch, answers=request_id)
        value = reply.result(TIMEOUT).value
        assert value is not None
        answers.append(value["instances"])
    assert answers[0] == answers[1]
    first = Mounted.from_dict(answers[0]["a"], owner.user_id, "counter")
    assert first.address.flow_id != answers[0]["b"]["address"]["flow_id"] and derive_id(request_id, "a")
    assert len(owner.read_keys("instance_metadata:")) == 2


def test_a_fetch_after_its_deadline_mounts_nothing(users: Users) -> None:
    owner, client = users(2)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    with pytest.raises(CallTimeoutError):
        get_flow_instance(client, "counter", owner.user_id, timeout=0.3)
    run_get_instance_worker_thread(owner)
    assert get_flow_instance(client, "counter", owner.user_id).get_instance_id()
    assert len(owner.read_keys("instance_metadata:")) == 1


def test_what_is_to_be_looked_for_for_ever_is_given_up(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request keeps a thread of the owner's while a third user, whose worker is away, is waited for."""
    monkeypatch.setattr(resolution, "LONGEST_FETCH", 0.5)
    owner, client, away = users(3)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.Chain", "chain")
    over = {"subflows_config": {"next": {"user_id": away.user_id}}}
    request_id = new_message_id()
    item = FetchItem(key="root", flow_endpoint="chain", config_overrides=over)
    fetch = Fetch(request_id=request_id, session=client.session.id, items=[item], deadline=time.time() + 1e9)
    reply = client.session.request(door_queue(owner.user_id).name, owner.user_id, request_id, fetch)
    failure = reply.result(TIMEOUT).failure
    assert failure is not None and "did not answer in time" in failure["text"]


@pytest.mark.parametrize("field", ["deadline", "keep_by"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_time_that_never_comes_is_refused(field: str, value: float) -> None:
    request: dict[str, Any] = {"kind": "fetch", "request_id": "1" * 32, "session": "2" * 32, "deadline": 1.0}
    request["items"] = [{"key": "a", "flow_endpoint": "counter"}]
    read_payload(TypeAdapter(DoorPayload), request)
    with pytest.raises(SerializationError):
        read_payload(TypeAdapter(DoorPayload), {**request, field: value})


@pytest.mark.parametrize("data", [b"\xc7\x00\x05", b"\x81\xa1x\xc7\x00\x05", b"\x91\xc7\x00\x7f"])
def test_an_empty_extension_is_no_plain_value(data: bytes) -> None:
    with pytest.raises(SerializationError):
        decode(data, max_bytes=100)
