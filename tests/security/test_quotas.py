"""Callers who ask for more than their share: refused, told when to ask again, and no trouble for others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from coflows import Client, FlowFuture
from coflows.broker.topology import dispatch_queue, session_queue
from coflows.errors import InstanceNotFoundError, QuotaExceededError, TurnTimeExceededError
from coflows.model.calls import Call
from coflows.model.messages import new_message_id
from coflows.model.wire import Recall
from coflows.proxy import FlowProxy
from coflows.serving import (
    DISPATCH_POINT,
    delete_flow_instance,
    get_flow_instance,
    recursive_delete_flow_instance,
    serve_flow,
)
from tests.security import quota_flows
from tests.waiting import until
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
ECHO = "EchoFlowModule.EchoFlow"
Users = Callable[..., list[Client]]


@pytest.fixture
def three(users: Users) -> list[Client]:
    """An owner, an attacker and somebody else, on the embedded broker."""
    return users(3)


@pytest.fixture
def gate() -> Iterator[None]:
    """Whatever waits for the gate goes on after the test."""
    quota_flows.GATE.clear()
    while quota_flows.BEGUN.acquire(blocking=False):
        pass
    yield
    quota_flows.GATE.set()


def served(
    owner: Client, callers: list[Client], flow: str, quota: dict[str, Any] | None = None, **options: Any
) -> list[FlowProxy]:
    """An instance for each of the callers, of a flow with a quota of its own."""
    name = flow if "." in flow else f"tests.security.quota_flows.{flow}"
    run_get_instance_worker_thread(owner)
    serve_flow(owner, name, "flow", quota=quota, **options)
    return [get_flow_instance(one, "flow", owner.user_id) for one in callers]


def outcomes(futures: list[FlowFuture]) -> tuple[list[dict[str, Any]], list[QuotaExceededError]]:
    """What came of them, and which were refused; nothing else may come of them."""
    replies, refused = [], []
    for future in futures:
        try:
            replies.append(future.get_data(TIMEOUT))
        except QuotaExceededError as error:
            refused.append(error)
    return replies, refused


def test_a_flood_of_messages_is_refused_with_a_time_to_ask_again(three: list[Client], gate: None) -> None:
    owner, attacker, other = three
    flow, others = served(owner, [attacker, other], "Stuck", {"messages": 20})
    run_dispatch_worker_thread(owner, concurrency=4)
    first = flow.submit({"wait": True})
    assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    flood = [flow.submit({}) for _ in range(500)]
    refused = [error for error in (future_error(one) for one in flood[19:]) if error]
    assert len(refused) == 481 and all(error.retry_after == 1.0 for error in refused)
    assert others.ask({}, TIMEOUT) == {"waited": False}, "others are not refused"
    quota_flows.GATE.set()
    assert first.get_data(TIMEOUT) == {"waited": True}
    assert [one.get_data(TIMEOUT) for one in flood[:19]] == [{"waited": True}] * 19, "what was let in is worked off"
    assert flow.ask({}, TIMEOUT) == {"waited": True}, "and so is what comes when there is room"


def future_error(future: FlowFuture) -> QuotaExceededError | None:
    with pytest.raises(QuotaExceededError) as caught:
        future.get_data(TIMEOUT)
    return caught.value


def test_what_is_let_in_of_a_flood_is_in_order_and_once(three: list[Client]) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "tests.flow_classes.Recorder", {"messages": 50})
    flood = [flow.submit({"number": number}) for number in range(2000)]
    run_dispatch_worker_thread(owner)
    replies, refused = outcomes(flood)
    assert refused and replies
    seen = replies[-1]["seen"]
    assert seen == sorted(set(seen)) and len(seen) == len(replies), "all that was let in, in the order sent"


def test_a_flood_of_large_messages_is_refused_until_its_bytes_have_passed(three: list[Client]) -> None:
    owner, attacker, other = three
    flow, others = served(owner, [attacker, other], ECHO, {"bytes_per_second": 2.0**20}, parallel_dispatch=True)
    run_dispatch_worker_thread(owner)
    replies, refused = outcomes([flow.submit({"text": "x" * (1000 * 1024)}) for _ in range(12)])
    # Four seconds' worth comes through at once, and the replies of those are owed.
    assert 1 <= len(replies) <= 4 and refused
    assert all(error.retry_after is not None and 0 < error.retry_after < 60 for error in refused)
    assert others.ask({"text": "x" * 10_000}, TIMEOUT), "others have their own"


def test_many_sessions_of_one_user_have_one_share(users: Users, gate: None) -> None:
    owner, attacker = users(2)
    (flow,) = served(owner, [attacker], "Stuck", {"messages": 10})
    run_dispatch_worker_thread(owner, concurrency=4)
    flow.submit({"wait": True})
    assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    sessions = [_another_session(attacker) for _ in range(5)]
    try:
        flood = [one.proxy(flow.address).submit({}) for one in sessions for _ in range(10)]
        done = [one for one in flood if _refused_soon(one)]
        assert len(done) >= 41
        quota_flows.GATE.set()
        assert len(outcomes([one for one in flood if one not in done])[0]) <= 9
    finally:
        for one in sessions:
            one.close()


def _another_session(cl: Client) -> Client:
    from coflows.broker import open_broker
    from coflows.store import open_store

    return Client(
        cl.identity, open_store(cl.store.url, namespace=cl.user_id), lambda: open_broker(cl.broker.url), cl.settings
    )


def _refused_soon(future: FlowFuture) -> bool:
    try:
        future.get_data(1.0)
    except QuotaExceededError:
        return True
    except TimeoutError:
        return False
    return False


def test_messages_to_ids_that_nobody_has_count_as_well(three: list[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attacker, _ = three
    owner.settings = replace(owner.settings, quota=owner.settings.quota.with_limits({"messages": 5}))
    (flow,) = served(owner, [attacker], ECHO)
    strangers = [replace(flow.address, flow_id=f"{number:08x}-0000-0000-0000-000000000000") for number in range(200)]
    futures = [attacker.proxy(replace(one, partition=0)).submit({}) for one in strangers]
    run_dispatch_worker_thread(owner)
    found: dict[type, int] = {}
    for future in futures:
        with pytest.raises((QuotaExceededError, InstanceNotFoundError)) as caught:
            future.get_data(TIMEOUT)
        found[caught.type] = found.get(caught.type, 0) + 1
    assert found[QuotaExceededError] > 100


def test_a_refused_message_that_comes_again_is_refused_the_same_way(three: list[Client], gate: None) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Stuck", {"messages": 1})
    run_dispatch_worker_thread(owner)
    first = flow.submit({"wait": True})
    assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    refused = flow.submit({})
    error = future_error(refused)
    # Its session sends it again, in its old place, as one does that has heard nothing.
    pending = refused.reply
    again = attacker.session.expect(pending.message_id, owner.user_id)
    assert pending.route is not None and pending.data is not None
    attacker.session.post(
        pending.route.queue, owner.user_id, pending.message_id, pending.data, lambda _error: None, place=pending.place
    )
    reply = again.result(TIMEOUT)
    assert reply.failure is not None and reply.failure["code"] == "quota_exceeded"
    # Who asks what became of it, from another process too, is told the same.
    assert error is not None
    with pytest.raises(QuotaExceededError, match="in hand"):
        attacker.reopen_future(refused.key).get_data(TIMEOUT)
    quota_flows.GATE.set()
    first.get_data(TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"waited": True}


def test_the_same_message_sent_later_is_worked_off_then_and_once(three: list[Client], gate: None) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Stuck", {"messages": 1})
    run_dispatch_worker_thread(owner)
    first = flow.submit({"wait": True})
    assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    message = flow.package_input_message({})
    future_error(flow.get_reply_future(message))
    quota_flows.GATE.set()
    first.get_data(TIMEOUT)
    assert flow.get_reply_future(message).get_data(TIMEOUT) == {"waited": True}
    assert flow.get_reply_future(message).get_data(TIMEOUT) == {"waited": True}, "it has an outcome now"


def test_messages_that_nobody_could_be_told_of_are_not_lost(three: list[Client]) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "tests.flow_classes.Recorder", {"messages": 10})
    for number in range(100):
        flow.send_message(flow.package_input_message({"number": number}))
    run_dispatch_worker_thread(owner)
    while True:
        try:
            seen = flow.ask({"number": 100}, TIMEOUT)["seen"]
            break
        except QuotaExceededError as error:
            time.sleep((error.retry_after or 0.0) / 10)
    assert seen == list(range(101))


def test_who_asks_for_recorded_replies_again_and_again_is_not_answered_beyond_his_bytes(three: list[Client]) -> None:
    owner, attacker, _ = three
    owner.settings = replace(owner.settings, quota=owner.settings.quota.with_limits({"bytes_per_second": 50_000.0}))
    (flow,) = served(owner, [attacker], ECHO)
    run_dispatch_worker_thread(owner)
    future = flow.submit({"text": "x" * 50_000})
    future.get_data(TIMEOUT)
    address, session = flow.address, attacker.session
    queue = dispatch_queue(owner.user_id, DISPATCH_POINT, address.partition).name
    arrived: list[int] = []
    consumer = attacker.broker.consume
    collecting = new_message_id()
    attacker.broker.declare(session_queue(attacker.user_id, collecting))

    def collect(delivery: Any) -> None:
        delivery.ack()
        arrived.extend(len(item.payload) for item in session.open(delivery.body).items)

    reading = consumer(session_queue(attacker.user_id, collecting).name, collect, prefetch=100)
    message_id = future.reply.message_id
    for _ in range(200):
        recall = Recall(flow_id=address.flow_id, message_id=message_id, session=collecting)
        session.send(queue, owner.user_id, new_message_id(), recall).result(TIMEOUT)
    assert flow.submit({"text": "y"}).done() in (True, False)
    other = get_flow_instance(three[2], "flow", owner.user_id)
    assert other.ask({"text": "z"}, TIMEOUT), "others have their own"
    reading.close()
    assert sum(arrived) < 20 * 50_000, "ten megabytes were asked for"


def test_forged_answers_are_let_in_no_further_than_to_be_refused(three: list[Client]) -> None:
    owner, attacker, other = three
    flow, others = served(owner, [attacker, other], ECHO, {"messages": 5})
    run_dispatch_worker_thread(owner)
    queue = dispatch_queue(owner.user_id, DISPATCH_POINT, flow.address.partition).name
    call = Call(flow.get_instance_id(), {"a": 1}, time.time(), answers=new_message_id())
    for _ in range(100):
        attacker.session.send(queue, owner.user_id, new_message_id(), call)
    assert others.ask({"a": 2}, TIMEOUT)


# -- instances -------------------------------------------------------------------------------------------------


def test_a_flood_of_fetches_ends_at_the_instances_that_one_user_may_have(three: list[Client]) -> None:
    owner, attacker, other = three
    flows = served(owner, [attacker] * 3, ECHO, {"instances": 3})
    with pytest.raises(QuotaExceededError, match="3 instances") as caught:
        get_flow_instance(attacker, "flow", owner.user_id, timeout=5)
    assert caught.value.retry_after == 60.0
    get_flow_instance(other, "flow", owner.user_id)
    delete_flow_instance(attacker, flows[0].get_instance_id())
    get_flow_instance(attacker, "flow", owner.user_id)


def test_fetches_all_at_once_get_no_more_instances_than_one_after_the_other(three: list[Client]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    owner, attacker, _ = three
    served(owner, [], ECHO, {"instances": 5})

    def fetch(_number: int) -> bool:
        try:
            get_flow_instance(attacker, "flow", owner.user_id, timeout=5)
        except QuotaExceededError:
            return False
        return True

    with ThreadPoolExecutor(30) as pool:
        assert sum(pool.map(fetch, range(30))) == 5
    assert len(owner.read_keys(f"usage:{attacker.user_id}:")) == 5


def test_subflows_count_as_instances_of_who_fetched_the_tree(three: list[Client]) -> None:
    owner, attacker, _ = three
    owner.settings = replace(owner.settings, quota=owner.settings.quota.with_limits({"instances": 5}))
    serve_flow(owner, ECHO, "echo")
    (flow,) = served(owner, [attacker], "Parent")
    assert len(owner.read_keys(f"usage:{attacker.user_id}:")) == 3
    with pytest.raises(QuotaExceededError):
        get_flow_instance(attacker, "flow", owner.user_id, timeout=5)
    recursive_delete_flow_instance(attacker, flow.get_instance_id())
    assert owner.read_keys("usage:") == []
    get_flow_instance(attacker, "flow", owner.user_id, timeout=5)


def test_a_flood_of_requests_leaves_threads_for_others(three: list[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    from coflows.broker.topology import door_queue
    from coflows.model.wire import Fetch, FetchItem

    owner, attacker, other = three
    served(owner, [], ECHO, {"instances": 10})
    door = door_queue(owner.user_id).name
    replies = []
    for _ in range(1000):
        request_id = new_message_id()
        item = FetchItem(key="root", flow_endpoint="flow")
        fetch = Fetch(request_id=request_id, session=attacker.session.id, items=[item], deadline=time.time() + 60)
        replies.append(attacker.session.request(door, owner.user_id, request_id, fetch))
    get_flow_instance(other, "flow", owner.user_id, timeout=TIMEOUT)
    answers = [reply.result(TIMEOUT) for reply in replies]
    codes = [answer.failure["code"] for answer in answers if answer.failure is not None]
    assert set(codes) == {"quota_exceeded"} and len(codes) == 990
    assert all(answer.failure["retry_after"] > 0 for answer in answers if answer.failure is not None)


# -- stored bytes ----------------------------------------------------------------------------------------------


def test_a_state_grows_no_further_than_its_callers_stored_bytes(three: list[Client]) -> None:
    owner, attacker, other = three
    flow, second, others = served(owner, [attacker, attacker, other], "Appender", {"stored_bytes": 200_000})
    run_dispatch_worker_thread(owner)
    for number in range(3):
        assert flow.ask({"text": "x" * 50_000}, TIMEOUT) == {"kept": number + 1}
    with pytest.raises(QuotaExceededError, match="bytes of state") as caught:
        flow.ask({"text": "x" * 80_000}, TIMEOUT)
    assert caught.value.retry_after is not None
    with pytest.raises(QuotaExceededError):
        second.ask({"text": "x" * 80_000}, TIMEOUT)
    assert others.ask({"text": "x" * 100_000}, TIMEOUT) == {"kept": 1}
    assert flow.ask({"text": "y"}, TIMEOUT) == {"kept": 4}, "the turn that was refused left nothing"
    assert flow.ask({"forget": True}, TIMEOUT) == {"kept": 1}
    assert second.ask({"text": "x" * 100_000}, TIMEOUT) == {"kept": 1}, "what was given back can be used"


def test_what_is_stored_counts_after_a_restart(three: list[Client]) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Appender", {"stored_bytes": 100_000})
    worker = run_dispatch_worker_thread(owner)
    flow.ask({"text": "x" * 80_000}, TIMEOUT)
    worker.stop()
    run_dispatch_worker_thread(owner)
    with pytest.raises(QuotaExceededError):
        flow.ask({"text": "x" * 40_000}, TIMEOUT)


def test_a_large_first_state_is_refused_as_a_grown_one_is(three: list[Client]) -> None:
    owner, attacker, _ = three
    served(owner, [], "Appender", {"stored_bytes": 100_000})
    with pytest.raises(QuotaExceededError):
        get_flow_instance(attacker, "flow", owner.user_id, initial_state={"kept": ["x" * 120_000]}, timeout=5)
    assert owner.read_keys("usage:") == [] and owner.read_keys("instance_metadata:") == []


# -- turns -----------------------------------------------------------------------------------------------------


def test_a_turn_that_sleeps_too_long_is_ended(three: list[Client]) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Sleeping", {"turn_seconds": 0.2})
    run_dispatch_worker_thread(owner)
    with pytest.raises(TurnTimeExceededError, match=r"longer than the 0\.2 s"):
        flow.ask({"seconds": 60}, TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"slept": True}


def test_a_turn_that_computes_too_long_in_a_process_is_killed(three: list[Client]) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Busy", {"turn_seconds": 1.0})
    run_dispatch_worker_thread(owner, concurrency=2)
    with pytest.raises(TurnTimeExceededError):
        flow.ask({"wait": True}, TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"done": True}


def test_a_thread_that_does_not_end_commits_nothing_and_counts_until_it_does(three: list[Client], gate: None) -> None:
    owner, attacker, other = three
    quota = {"turn_seconds": 0.2, "messages": 2}
    flow, others = served(owner, [attacker, other], "Stuck", quota)
    run_dispatch_worker_thread(owner, concurrency=1)
    with pytest.raises(TurnTimeExceededError):
        flow.ask({"wait": True}, TIMEOUT)
    # Its slot is free, for others only: the attacker's next turn waits for his thread.
    assert others.ask({}, TIMEOUT) == {"waited": False}
    waiting = flow.submit({})
    assert others.ask({}, TIMEOUT) == {"waited": False} and not waiting.done()
    assert future_error(flow.submit({})), "the thread is in hand, and so is what waits"
    quota_flows.GATE.set()
    assert waiting.get_data(TIMEOUT) == {"waited": False}, "what the turn has done to the state is gone"
    assert flow.ask({}, TIMEOUT) == {"waited": False}


def test_a_coroutine_that_ignores_its_end_does_not_hold_its_instance(three: list[Client], gate: None) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Stubborn", {"turn_seconds": 0.2})
    run_dispatch_worker_thread(owner)
    with pytest.raises(TurnTimeExceededError):
        flow.ask({"wait": True}, TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"through": True}


def test_slow_turns_of_one_user_do_not_hold_all_slots(three: list[Client], gate: None) -> None:
    owner, attacker, other = three
    serve_flow(owner, ECHO, "echo")
    served(owner, [], "Stuck")
    slow = [get_flow_instance(attacker, "flow", owner.user_id) for _ in range(6)]
    quick = get_flow_instance(other, "echo", owner.user_id)
    run_dispatch_worker_thread(owner, concurrency=3)
    held = [one.submit({"wait": True}) for one in slow]
    for _ in range(2):
        assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    assert quick.ask({"a": 1}, TIMEOUT), "one slot is not his"
    assert not quota_flows.BEGUN.acquire(timeout=0.05), "and stays free for others"
    quota_flows.GATE.set()
    assert [one.get_data(TIMEOUT) for one in held] == [{"waited": True}] * 6


def test_slow_turns_in_processes_do_not_hold_all_of_them(three: list[Client]) -> None:
    owner, attacker, other = three
    *slow, quick = served(owner, [attacker, attacker, other], "Busy")
    run_dispatch_worker_thread(owner, concurrency=2)
    held = [one.submit({"wait": True}) for one in slow]
    assert quick.ask({}, TIMEOUT) == {"done": True}
    for one in held:
        one.cancel()


def test_a_queue_in_front_of_a_shared_instance_is_no_longer_for_others(three: list[Client], gate: None) -> None:
    owner, attacker, other = three
    flow, others = served(owner, [attacker, other], "tests.flow_classes.Recorder", singleton=True)
    flood = [flow.submit({"number": number}) for number in range(2000)]
    asked = others.submit({"number": -1})
    run_dispatch_worker_thread(owner)
    place = asked.get_data(TIMEOUT)["seen"].index(-1)
    assert place < 1000, "it did not wait for all of the flood"
    assert len(outcomes(flood)[0]) == 2000


def test_a_caller_that_never_takes_his_replies_holds_nothing_of_others(three: list[Client]) -> None:
    owner, attacker, other = three
    flow, others = served(owner, [attacker, other], ECHO, {"messages": 100})
    run_dispatch_worker_thread(owner)
    queue = dispatch_queue(owner.user_id, DISPATCH_POINT, flow.address.partition).name
    silent = new_message_id()
    attacker.broker.declare(session_queue(attacker.user_id, silent))  # Nobody consumes it.
    for _ in range(500):
        call = Call(
            flow.get_instance_id(), {"text": "x" * 1000}, time.time(), reply={"mode": "storage", "session": silent}
        )
        attacker.session.send(queue, owner.user_id, new_message_id(), call)
    assert others.ask({"a": 1}, TIMEOUT)


def test_a_quota_can_be_changed_while_it_is_served(three: list[Client], gate: None) -> None:
    owner, attacker, _ = three
    (flow,) = served(owner, [attacker], "Stuck", {"messages": 1})
    assert serve_flow(owner, "tests.security.quota_flows.Stuck", "flow", quota={"messages": 3}) is False
    run_dispatch_worker_thread(owner)
    flow.submit({"wait": True})
    assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    let_in = [flow.submit({}) for _ in range(2)]
    assert future_error(flow.submit({}))
    quota_flows.GATE.set()
    assert len(outcomes(let_in)[0]) == 2


def test_the_owner_himself_has_no_quota(three: list[Client], gate: None) -> None:
    owner, _, _ = three
    served(owner, [], "Stuck", {"messages": 1, "instances": 1, "turn_seconds": 0.1, "stored_bytes": 1})
    flows = [get_flow_instance(owner, "flow") for _ in range(3)]
    run_dispatch_worker_thread(owner, concurrency=3)
    held = [one.submit({"wait": True}) for one in flows]
    for _ in range(3):
        assert quota_flows.BEGUN.acquire(timeout=TIMEOUT), "all slots may be his"
    quota_flows.GATE.set()
    assert [one.get_data(TIMEOUT) for one in held] == [{"waited": True}] * 3


def test_large_messages_that_wait_take_no_more_than_is_kept_for_one_user(
    monkeypatch: pytest.MonkeyPatch, users: Users, gate: None
) -> None:
    """Parked they counted nowhere: a flow that waits for something had its worker keep gigabytes for one caller, and
    read them every second."""
    monkeypatch.setenv("COFLOWS_PARK_AFTER", "0.1")
    owner, attacker, other = users(3)
    quota = {"bytes_per_second": 2**18}
    flow, others = served(owner, [attacker, other], "Stubborn", quota, parallel_dispatch=True)
    run_dispatch_worker_thread(owner, concurrency=4)
    for _ in range(8):  # These ask for no reply, and are not refused.
        flow.send_message(flow.package_input_message({"wait": True, "text": b"." * 600_000}))
    for _ in range(8):
        assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    with pytest.raises(QuotaExceededError, match="2,097,152 bytes of memory") as caught:
        flow.ask({}, TIMEOUT)
    assert caught.value.retry_after == 1.0
    until(owner.store, "parked:", lambda: len(owner.read_keys("parked:")) == 3, "as many are parked as may be")
    flow.send_message(flow.package_input_message({"wait": True}))
    assert quota_flows.BEGUN.acquire(timeout=TIMEOUT)
    until(
        owner.store, "parked:", lambda: len(owner.read_keys("parked:")) == 4, "a small one too, and no other large one"
    )
    assert others.ask({}, TIMEOUT) == {"through": True}
    quota_flows.GATE.set()
    until(owner.store, "parked:", lambda: not owner.read_keys("parked:"), "all are done")
