"""Sealed messages that come again, late, or somewhere else: nothing is worked off twice, whatever is started anew."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coflows import Client, FlowMessage
from coflows.broker.topology import dispatch_queue, door_queue, session_queue
from coflows.codec.wire import encode
from coflows.dead_letters import OpenedLetter, list_dead_letters, replay_dead_letter
from coflows.dispatch.membership import refused_by_workers
from coflows.dispatch.records import TurnRecord
from coflows.dispatch.sweeping import sweep_page
from coflows.errors import InstanceNotFoundError
from coflows.identity.sealing import LONGEST, SKEW, Item, seal_items
from coflows.model.calls import Call, Reply
from coflows.model.layout import DONE, RELEASED, dead_key, done_key
from coflows.model.messages import new_message_id
from coflows.serving import delete_flow_endpoint, get_flow_instance, release_flow_instance, serve_flow
from tests import flow_classes
from tests.security.operator import TIMEOUT, Operator, letters
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

Users = Callable[..., list[Client]]
COUNTER = "CounterFlowModule.CounterFlow"
POINT = "coflows_dispatch"
DAY = 86400.0


@pytest.fixture
def pair(users: Users) -> tuple[Client, Client, Operator]:
    """Who serves a counter, who uses it, and the operator of their broker."""
    owner, client = users(2)
    serve_flow(owner, COUNTER, "counter")
    return owner, client, Operator(owner, client)


def test_a_call_again_after_a_restart(pair: tuple[Client, Client, Operator]) -> None:
    owner, client, operator = pair
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    with run_dispatch_worker_thread(owner):
        assert flow.ask({}, TIMEOUT) == {"count": 1}
    ((queue, body, *_),) = operator.sent(owner, "call")
    operator.inject(client, [(queue, body)] * 3)
    with run_dispatch_worker_thread(owner):
        assert flow.ask({}, TIMEOUT) == {"count": 2}
        operator.inject(client, [(queue, body)] * 3)
        assert flow.ask({}, TIMEOUT) == {"count": 3}


def test_everything_again_after_everything(pair: tuple[Client, Client, Operator]) -> None:
    """Calls, requests, releases, keeps, cancels, recalls, replies: all that was ever sent, in any order."""
    owner, client, operator = pair
    serve_flow(owner, "tests.flow_classes.Pushing", "pushing")
    serve_flow(owner, "tests.flow_classes.End", "end")
    serve_flow(owner, "tests.flow_classes.Gated", "gated")
    flow_classes.GATE.clear()
    with run_dispatch_worker_thread(owner), run_get_instance_worker_thread(owner):
        flow, other = (get_flow_instance(client, "counter", owner.user_id) for _ in range(2))
        gated = get_flow_instance(client, "gated", owner.user_id)
        pushing = get_flow_instance(client, "pushing", owner.user_id)
        assert [flow.ask({}, TIMEOUT)["count"] for _ in range(3)] == [1, 2, 3]
        assert pushing.ask({"id": 7}, TIMEOUT) == {"depth": 0, "id": 7}
        future = flow.get_reply_future(flow.package_input_message({}))
        key = future.key
        assert future.get_data(TIMEOUT) == {"count": 4}
        assert client.reopen_future(key).get_data(TIMEOUT) == {"count": 4}
        other.ask({}, TIMEOUT)
        assert gated.get_reply_future(gated.package_input_message({})).cancel()
        flow_classes.GATE.set()
        release_flow_instance(client, other)
        for kind in ("call", "fetch", "keep", "release", "recall", "cancel"):
            assert operator.sent(owner, kind), kind
        assert operator.sent(client, "reply")
    before = owner.read_keys("instance_metadata:")
    with run_dispatch_worker_thread(owner), run_get_instance_worker_thread(owner):
        again = list(operator.seen) * 2
        random.Random(7).shuffle(again)
        operator.inject(client, again)
        assert flow.ask({}, TIMEOUT) == {"count": 5}
        assert pushing.ask({"id": 8}, TIMEOUT) == {"depth": 0, "id": 8}
        assert get_flow_instance(client, "counter", owner.user_id).ask({}, TIMEOUT) == {"count": 1}
        assert set(before) <= set(owner.read_keys("instance_metadata:"))
        assert len(owner.read_keys("instance_metadata:")) == len(before) + 1
        assert list_dead_letters(owner) == []


def refetched(operator: Operator, owner: Client, client: Client) -> str:
    """Have the client's first request come again; gives the code of what is answered."""
    queue, body, _, value = operator.sent(owner, "fetch")[0]
    answer = client.session.expect(value["request_id"], owner.user_id)
    operator.inject(client, [(queue, body)])
    failure = answer.result(TIMEOUT).failure
    return "" if failure is None else str(failure["code"])


def test_a_request_again_for_an_instance_given_back(pair: tuple[Client, Client, Operator]) -> None:
    """With the instance the records of its turns went: its calls would be worked off a second time."""
    owner, client, operator = pair
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    release_flow_instance(client, flow)
    assert refetched(operator, owner, client) == "instance_not_found"
    queue, body, opened, _ = operator.sent(owner, "call")[0]
    refused = client.session.expect(opened.message_id, owner.user_id)
    operator.inject(client, [(queue, body)])
    failure = refused.result(TIMEOUT).failure
    assert failure is not None and failure["code"] == "instance_not_found"
    assert owner.read_keys("instance_metadata:") == []


def test_a_request_again_for_an_endpoint_served_anew(pair: tuple[Client, Client, Operator]) -> None:
    owner, client, operator = pair
    run_get_instance_worker_thread(owner)
    get_flow_instance(client, "counter", owner.user_id)
    delete_flow_endpoint(owner, "counter")
    serve_flow(owner, COUNTER, "counter")
    assert refetched(operator, owner, client) == "instance_not_found"
    assert owner.read_keys("instance_metadata:") == []
    (mark,) = owner.store.scan(RELEASED)
    sweep_page(owner.store, RELEASED, None, time.time() + LONGEST, 1.0)
    assert owner.store.keys(RELEASED) == [mark.key], "it outlives the request"


def test_a_dead_letter_again_after_it_was_replayed(pair: tuple[Client, Client, Operator]) -> None:
    """Its envelope may be valid for longer than its owner keeps records; that it was worked off is known so long."""
    owner, client, operator = pair
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    message_id, flow_id, partition = new_message_id(), flow.get_instance_id(), flow.address.partition
    payload = encode(Call(flow_id, {}).to_dict())
    sealed = seal_items(client.identity, owner.user_id, int(time.time() + 80 * DAY), [Item(message_id, payload)])
    letter = OpenedLetter(POINT, partition, client.user_id, message_id, flow_id, "poison_message", payload)
    owner.store.commit({dead_key(letter.id): letter.encode()})
    replay_dead_letter(owner, letter.id)
    run_dispatch_worker_thread(owner)
    assert flow.ask({}, TIMEOUT) == {"count": 2}
    sweep_page(owner.store, DONE, None, time.time() + 79 * DAY, owner.settings.call_ttl)
    again = [(queue, body) for queue, body, *_ in operator.sent(owner, "replay")]
    operator.inject(client, [*again, (dispatch_queue(owner.user_id, POINT, partition).name, sealed)])
    assert flow.ask({}, TIMEOUT) == {"count": 3}


def test_a_call_after_its_record_was_swept(pair: tuple[Client, Client, Operator]) -> None:
    """There is no such moment: what is valid for longer than anything is remembered is not taken."""
    owner, client, _ = pair
    run_get_instance_worker_thread(owner)
    run_dispatch_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    queue = dispatch_queue(owner.user_id, POINT, flow.address.partition).name
    payload = encode(Call(flow.get_instance_id(), {}).to_dict())
    for days in (92, 3650):
        expiry = int(time.time() + days * DAY)
        client.broker.publish(
            queue, seal_items(client.identity, owner.user_id, expiry, [Item(new_message_id(), payload)])
        )
    assert all("at most 90" in reason for reason in letters(owner, 2))
    now, message_id = time.time(), new_message_id()
    client.broker.publish(
        queue, seal_items(client.identity, owner.user_id, int(now + LONGEST + SKEW), [Item(message_id, payload)])
    )
    assert flow.ask({}, TIMEOUT) == {"count": 2}, "the longest there is"
    done = done_key(flow.get_instance_id(), message_id)
    sweep_page(owner.store, DONE, None, now + LONGEST + 2 * SKEW - 2, 1.0)
    entry = owner.store.get(done)
    assert entry is not None and TurnRecord.decode(entry.value).until >= int(now + LONGEST + SKEW)


def test_a_timer_again(pair: tuple[Client, Client, Operator]) -> None:
    owner, client, operator = pair
    serve_flow(owner, "tests.flow_classes.Alarm", "alarm")
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "alarm", owner.user_id)
    with run_dispatch_worker_thread(owner):
        flow.ask({"seconds": 0, "ring": "once"}, TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while not flow.ask({}, TIMEOUT)["rung"]:
            assert time.monotonic() < deadline
    calls = operator.sent(owner, "call")
    fired = [(queue, body) for queue, body, _, value in calls if value["data"].get("ring") == "once"]
    assert len(fired) == 2, "what set it, and what it sent"
    with run_dispatch_worker_thread(owner):
        operator.inject(client, fired * 3)
        assert flow.ask({}, TIMEOUT) == {"rung": ["once"]}


def test_a_message_sealed_for_another(users: Users) -> None:
    owner, client, other = users(3)
    operator = Operator(client)
    for cl in (owner, other):
        serve_flow(cl, COUNTER, "counter")
        run_dispatch_worker_thread(cl)
        run_get_instance_worker_thread(cl)
    flow, others = (get_flow_instance(client, "counter", cl.user_id) for cl in (owner, other))
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    ((_, body, *_),) = operator.sent(owner, "call")
    operator.inject(client, [(dispatch_queue(other.user_id, POINT, others.address.partition).name, body)])
    assert "another user" in letters(other, 1)[0]
    assert others.ask({}, TIMEOUT) == {"count": 1}


def test_a_message_through_the_workers_of_another_point(users: Users) -> None:
    """They would work it off beside the instance's own turns, and one of the two would be lost."""
    owner, client, attacker = users(3)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, COUNTER, "counter", singleton=True)
    for point in (POINT, "elsewhere"):
        run_dispatch_worker_thread(owner, dispatch_point=point)
    flow = get_flow_instance(client, "counter", owner.user_id)
    with pytest.raises(InstanceNotFoundError):
        attacker.proxy(replace(flow.address, dispatch_point="elsewhere")).ask({}, TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"count": 1}


def test_messages_at_the_wrong_kind_of_queue(pair: tuple[Client, Client, Operator]) -> None:
    owner, client, operator = pair
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    door, inbox = door_queue(owner.user_id).name, dispatch_queue(owner.user_id, POINT, 0).name
    (call, *_), (fetch, *_) = operator.sent(owner, "call"), operator.sent(owner, "fetch")
    operator.inject(client, [(door, call[1]), (inbox, fetch[1])])
    assert sorted(reason.partition(":")[0] for reason in letters(owner, 2)) == ["serialization"] * 2
    assert flow.ask({}, TIMEOUT) == {"count": 2}
    assert owner.session.refusals.counts()["serialization"] == 2


def test_a_reply_again_or_in_another_session(pair: tuple[Client, Client, Operator]) -> None:
    owner, client, operator = pair
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    own, others = (session_queue(cl.user_id, cl.session.id).name for cl in (client, owner))
    owner.session.expect(new_message_id(), client.user_id)  # It listens.
    replies = [body for _, body, *_ in operator.sent(client, "reply")]
    operator.inject(client, [(queue, body) for body in replies for queue in (own, others)] * 2)
    assert [flow.ask({}, TIMEOUT)["count"] for _ in range(3)] == [2, 3, 4]
    assert owner.session.refusals.counts() == {"envelope": 2 * len(replies)}


def test_a_parcel_with_one_bad_message(pair: tuple[Client, Client, Operator]) -> None:
    """All of it is refused, by name, and nothing in it is worked off; what comes after it is."""
    owner, client, _ = pair
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    good = encode(Call(flow.get_instance_id(), {}).to_dict())
    queue = dispatch_queue(owner.user_id, POINT, flow.address.partition).name
    reply = encode(Reply("0" * 32).to_dict())
    for bad in (b"\xc1", b"\x91" * 60 + b"\xc0", encode({"kind": "call"}), reply):
        items = [Item(new_message_id(), payload) for payload in (good, good, bad, good)]
        client.broker.publish(queue, seal_items(client.identity, owner.user_id, int(time.time()) + 60, items))
    assert {reason.partition(":")[0] for reason in letters(owner, 4)} == {"serialization"}
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    assert owner.session.refusals.counts()["serialization"] == 4


def test_an_envelope_of_huge_size(pair: tuple[Client, Client, Operator]) -> None:
    owner, client, _ = pair
    with run_dispatch_worker_thread(owner), run_get_instance_worker_thread(owner):
        flow = get_flow_instance(client, "counter", owner.user_id)
        for queue in (dispatch_queue(owner.user_id, POINT, 0), door_queue(owner.user_id)):
            item = Item(new_message_id(), bytes(4 * 2**20))
            sealed = seal_items(client.identity, owner.user_id, int(time.time()) + 60, [item])
            client.broker.publish(queue.name, sealed)
        assert all("at most" in reason for reason in letters(owner, 2))
        assert flow.ask({}, TIMEOUT) == {"count": 1}
        assert owner.session.refusals.counts() == {"envelope": 2}
        deadline = time.monotonic() + TIMEOUT
        while refused_by_workers(owner.store, POINT) != {"envelope": 2}:
            assert time.monotonic() < deadline, "an owner sees it in coflows doctor"


def test_a_message_id_used_again_for_something_else(pair: tuple[Client, Client, Operator]) -> None:
    """What was answered first stands; the same id never runs twice."""
    owner, client, _ = pair
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    flow = get_flow_instance(client, "counter", owner.user_id)
    message_id = new_message_id()
    for data in ({}, {"step": 5}, {"other": "data"}):
        assert flow.get_reply_future(FlowMessage(data, message_id=message_id)).get_data(TIMEOUT) == {"count": 1}


def test_a_field_name_that_would_write_into_the_log(
    pair: tuple[Client, Client, Operator], caplog: pytest.LogCaptureFixture
) -> None:
    owner, client, _ = pair
    run_get_instance_worker_thread(owner)
    evil = "x\n2026-01-01 ERROR all is lost\x1b[2J" + "y" * 100_000
    payload = encode({"kind": "fetch", evil: 1})
    sealed = seal_items(client.identity, owner.user_id, int(time.time()) + 60, [Item(new_message_id(), payload)])
    client.broker.publish(door_queue(owner.user_id).name, sealed)
    (reason,) = letters(owner, 1)
    assert len(reason) < 400 and "\n" not in reason and "\x1b" not in reason
    assert not any("\x1b" in record.getMessage() or "\n" in record.getMessage() for record in caplog.records)


def test_a_reply_of_a_provider_that_is_not_what_was_asked_for(pair: tuple[Client, Client, Operator]) -> None:
    """Instances of others, counts without end, things that are no lists: an error of ours, and no other."""
    from hypothesis import given, settings
    from hypothesis import strategies as st

    from coflows.errors import CoflowsError
    from coflows.tree_node import Mounted

    owner, client, _ = pair
    odd = st.sampled_from([None, True, -1, 2**63, float("nan"), "", "x:y", b"", b"\xff"])
    value = st.recursive(odd, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(odd, inner, max_size=3))
    run_get_instance_worker_thread(owner)
    address = get_flow_instance(client, "counter", owner.user_id).address.to_dict()
    fields = st.fixed_dictionaries({}, optional={name: value | st.just(address.get(name)) for name in address})
    answer = st.fixed_dictionaries(
        {}, optional={"address": fields | value, "count": value, "warnings": value, "probation": value}
    )

    @settings(max_examples=100, deadline=None)
    @given(answer)
    def answered(told: dict[str, object]) -> None:
        try:
            mounted = Mounted.from_dict(told, owner.user_id, "counter")
        except CoflowsError:
            return
        assert mounted.address.user_id == owner.user_id and mounted.count >= 1

    answered()
    with pytest.raises(CoflowsError):
        Reply.from_dict({"kind": "reply", "answers": "0" * 32, "value": [], "pending": 1})


def noted(place: str, ctx: Any = {}) -> int:  # noqa: B006
    with Path(place).open("a") as notes:
        notes.write("x")
    return len(Path(place).read_text())


def test_all_that_a_colony_sent_again(users: Users, tmp_path: Path) -> None:
    """Its steps are not run again, and its graphs stay what they are."""
    from coflows.workflow import Colonies, Executor, Workflow, func_spec

    (owner,) = users(1)
    operator, client, notes = Operator(owner), Colonies(owner), tmp_path / "notes"
    client.add_colony("colony")

    def run() -> int:
        workflow = Workflow(colonyname="colony")
        step = func_spec(func=noted, args=[str(notes)], colonyname="colony", executortype="e", maxexectime=60)
        workflow.functionspecs.append(step)
        graph = client.submit_workflow(workflow)
        assert client.wait(graph, TIMEOUT).state == "SUCCESS"
        (process,) = client.get_processgraph(graph.processgraphid).processids
        return int(client.get_process(process).output)

    with Executor(owner, "colony", "e"):
        assert run() == 1
        operator.inject(owner, list(operator.seen) * 2)
        assert run() == 2
    assert notes.read_text() == "xx"
