"""Attacks on the budgets of grants: more than given, one by one, all at once, by several workers, by sending again."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from coflows.access.grants import read_grant
from coflows.broker.topology import door_queue
from coflows.dispatch.gate import Gate
from coflows.dispatch.job import Job
from coflows.errors import FlowInstanceError, GrantSpentError
from coflows.granting import grant_flow, narrow_grant
from coflows.model.calls import Call
from coflows.model.failure import Failure
from coflows.model.messages import new_message_id
from coflows.model.wire import Fetch, FetchItem
from coflows.session import Incoming
from tests.security.world import TIMEOUT, World, mounted, refused_with, spent


def test_more_calls_than_granted_one_by_one(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, calls=3)
    flow = world.fetch(world.bob, endpoint, grant=token)
    assert [flow.ask({}, TIMEOUT)["count"] for _ in range(3)] == [1, 2, 3]
    refused_with(GrantSpentError, lambda: flow.ask({}, TIMEOUT), "3 calls")
    again = world.fetch(world.bob, endpoint, grant=token)
    refused_with(GrantSpentError, lambda: again.ask({}, TIMEOUT))
    assert spent(world.alice, token)[:2] == (3, 2)
    assert world.alice.read_keys("charged:") == [], "what was paid for is on record, and marked no more"


@pytest.mark.parametrize("parallel", [False, True])
def test_more_calls_than_granted_all_at_once(world: World, parallel: bool) -> None:
    """Over several instances, of which some are in other partitions."""
    endpoint = world.serve("Tally", access="grant", parallel_dispatch=parallel)
    token = grant_flow(world.alice, world.bob.user_id, endpoint, calls=10)
    flows = [world.fetch(world.bob, endpoint, grant=token) for _ in range(4)]
    futures = [flow.submit({}) for _ in range(6) for flow in flows]
    outcomes = []
    for future in futures:
        try:
            outcomes.append(future.get_data(TIMEOUT)["count"])
        except GrantSpentError:
            outcomes.append(0)
    assert sum(map(bool, outcomes)) == 10 == spent(world.alice, token)[0]


def test_more_calls_than_granted_by_handing_it_to_oneself(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, calls=3)
    parts = [narrow_grant(world.bob, token, world.bob.user_id, calls=2) for _ in range(3)]
    done = 0
    for part in parts:
        flow = world.fetch(world.bob, endpoint, grant=part)
        for _ in range(3):
            try:
                flow.ask({}, TIMEOUT)
                done += 1
            except GrantSpentError:
                pass
    assert done == 3 == spent(world.alice, token)[0]


def test_the_same_message_again_costs_and_gives_nothing(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, calls=1)
    flow = world.fetch(world.bob, endpoint, grant=token)
    message = flow.package_input_message({})
    for _ in range(3):
        assert flow.get_reply_future(message).get_data(TIMEOUT)["count"] == 1
    assert spent(world.alice, token)[0] == 1


def test_a_message_whose_worker_died_is_paid_for_once(world: World) -> None:
    """It comes again after it was paid for, before and after its turn was committed."""
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, calls=2)
    flow = world.fetch(world.bob, endpoint, grant=token)
    message = flow.package_input_message({})
    gate = Gate(world.alice, None)  # type: ignore[arg-type]
    incoming = Incoming(world.bob.user_id, message.message_id, {}, b"x" * 9)
    call = Call(flow.get_instance_id(), {})
    for _ in range(3):
        job = Job(None, incoming, call, None, ("", "", ""))  # type: ignore[arg-type]
        gate.charge(job, read_grant(token))
        assert job.charged in world.alice.read_keys("charged:")
    assert spent(world.alice, token) == (1, 1, 9)
    assert flow.get_reply_future(message).get_data(TIMEOUT)["count"] == 1
    assert world.alice.read_keys(f"charged:{flow.get_instance_id()}") == []
    gate.charge(Job(None, incoming, call, None, ("", "", "")), read_grant(token))  # type: ignore[arg-type]
    assert spent(world.alice, token)[0] == 1
    assert world.alice.read_keys(f"charged:{flow.get_instance_id()}") == []
    flow.ask({}, TIMEOUT)
    refused_with(GrantSpentError, lambda: flow.ask({}, TIMEOUT))


def test_more_calls_than_granted_from_several_workers(world: World) -> None:
    """Each of which counts for itself what all of them spend."""
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, calls=10)
    call = Call(world.fetch(world.bob, endpoint, grant=token).get_instance_id(), {})

    def pay(gate: Gate) -> int:
        done = 0
        for _ in range(6):
            incoming = Incoming(world.bob.user_id, new_message_id(), {}, b"")
            try:
                gate.charge(Job(None, incoming, call, None, ("", "", "")), read_grant(token))  # type: ignore[arg-type]
                done += 1
            except GrantSpentError:
                pass
        return done

    with ThreadPoolExecutor(4) as pool:
        gates = [Gate(world.alice, None) for _ in range(4)]  # type: ignore[arg-type]
        assert sum(pool.map(pay, gates)) == 10 == spent(world.alice, token)[0]


def test_more_bytes_than_granted(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, bytes=2000)
    flow = world.fetch(world.bob, endpoint, grant=token)
    assert flow.ask({"padding": "x" * 1000}, TIMEOUT)["count"] == 1
    refused_with(GrantSpentError, lambda: flow.ask({"padding": "x" * 1000}, TIMEOUT), "2000 bytes")
    assert flow.ask({}, TIMEOUT)["count"] == 2, "what was refused was not paid for"


def test_more_instances_than_granted_all_at_once(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, instances=3)

    def fetch(_: int) -> bool:
        try:
            world.fetch(world.bob, endpoint, grant=token)
        except GrantSpentError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(fetch, range(8))) == 3
    assert len(mounted(world.alice, endpoint)) == 3 == spent(world.alice, token)[1]


def test_more_instances_than_granted_in_one_request(world: World) -> None:
    """All or nothing, and what was refused costs nothing."""
    endpoint, bob = world.serve("Tally", access="grant"), world.bob
    token = grant_flow(world.alice, bob.user_id, endpoint, instances=3)
    for keys, good in (("abcd", False), ("abc", True)):
        items = [FetchItem(key=key, flow_endpoint=endpoint) for key in keys]
        fetch = Fetch(
            request_id=new_message_id(),
            session=bob.session.id,
            items=items,
            deadline=time.time() + TIMEOUT,
            grants=dict.fromkeys(keys, token),
        )
        queue = door_queue(world.alice.user_id).name
        for _ in range(2):  # The same request again is the same instances.
            answer = bob.session.request(queue, world.alice.user_id, fetch.request_id, fetch).result(TIMEOUT)
            assert (answer.failure is None) is good
            if answer.failure is not None:
                error = Failure.from_dict(answer.failure).to_error("")
                assert isinstance(error, GrantSpentError | FlowInstanceError) and "3 instances" in str(error)
        assert len(mounted(world.alice, endpoint)) == 3 * good == spent(world.alice, token)[1]
