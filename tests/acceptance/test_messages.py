"""Messages, replies and futures."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from coflows import Client, FlowMessage, futures, mounting
from coflows.dispatch import partitions
from coflows.errors import (
    CallCancelledError,
    CallTimeoutError,
    FlowError,
    InstanceNotFoundError,
    MessageTooLargeError,
    RemoteFlowError,
    SerializationError,
)
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from tests import flow_classes
from workers import run_dispatch_worker_thread, run_dispatch_worker_threads, run_get_instance_worker_thread

TIMEOUT = 30
Users = Callable[..., list[Client]]


@pytest.fixture
def two(users: Users, broker_url: str) -> list[Client]:
    clients = users(2, broker_url)
    for cl in clients:
        run_get_instance_worker_thread(cl)
    return clients


def serve(owner: Client, client: Client, name: str, **options: bool) -> FlowProxy:
    if "." not in name:
        name = f"tests.flow_classes.{name}"
    serve_flow(owner, name, "flow", **options)
    return get_flow_instance(client, "flow", user_id=owner.user_id)


def test_a_turn_that_raises_fails_the_future_and_commits_nothing(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "CounterFlowModule.CounterFlow")
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    with pytest.raises(RemoteFlowError) as caught:
        flow.ask({"fail": True}, TIMEOUT)
    error = caught.value
    assert (error.error_type, error.error_text) == ("RuntimeError", "asked to fail")
    assert error.remote_traceback is None, "only the owner sees the traceback"
    assert flow.ask({}, TIMEOUT) == {"count": 2}
    with pytest.raises(RemoteFlowError) as caught:
        owner.proxy(flow.address).ask({"fail": True}, TIMEOUT)
    assert "raise RuntimeError" in (caught.value.remote_traceback or "")


def test_the_same_message_is_worked_off_once(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "CounterFlowModule.CounterFlow")
    message = flow.package_input_message({})
    first = flow.get_reply_future(message).get_data(TIMEOUT)
    assert flow.get_reply_future(message).get_data(TIMEOUT) == first == {"count": 1}
    assert flow.ask({}, TIMEOUT) == {"count": 2}


def test_order_and_exclusion(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner, concurrency=8)
    flow = serve(owner, client, "Recorder")
    messages = [flow.package_input_message({"number": number}) for number in range(100)]
    futures = [flow.get_reply_future(message) for message in messages]
    assert futures[-1].get_data(TIMEOUT) == {"seen": list(range(100))}
    assert [len(future.get_data(TIMEOUT)["seen"]) for future in futures] == list(range(1, 101))


def test_messages_wait_for_a_worker(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "EchoFlowModule.EchoFlow")
    future = flow.get_reply_future(flow.package_input_message({"a": 1}))
    assert future.try_get_data() is None and future.try_get_message() is None and not future.done()
    with pytest.raises(CallTimeoutError, match="not lost"):
        future.get_data(timeout=0.2)
    with pytest.raises(TimeoutError):
        future.get_data(timeout=0.1)
    run_dispatch_worker_thread(owner)
    assert future.get_data(TIMEOUT) == {"a": 1}
    assert future.done() and future.try_get_data() == {"a": 1}


def test_a_future_is_awaited(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "Async")

    async def ask() -> list[dict[str, bool]]:
        futures = [flow.get_reply_future(flow.package_input_message({"seconds": 0.1})) for _ in range(5)]
        return list(await asyncio.gather(*futures))

    assert asyncio.run(ask()) == [{"done": True}] * 5


def test_a_future_is_cancelled(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "EchoFlowModule.EchoFlow")
    future = flow.get_reply_future(flow.package_input_message({}))
    assert future.cancel()
    with pytest.raises(CallCancelledError):
        future.get_data(TIMEOUT)


def test_a_future_is_reopened_by_its_key(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "CounterFlowModule.CounterFlow")
    key = flow.get_reply_future(flow.package_input_message({})).key
    client.session.close()
    client._session = None
    reopened = client.reopen_future(key)
    assert not reopened.done()
    run_dispatch_worker_thread(owner)
    assert reopened.get_data(TIMEOUT) == {"count": 1}
    assert client.reopen_future(key).get_data(TIMEOUT) == {"count": 1}


def test_push_replies_of_two_conversations_do_not_mix(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.End", "end")
    flow = serve(owner, client, "Pushing")
    futures = {number: flow.get_reply_future(flow.package_input_message({"id": number})) for number in range(20)}
    for number, future in futures.items():
        assert future.get_data(TIMEOUT) == {"depth": 0, "id": number}
    assert owner.read_keys("calls:") == []


def test_a_failure_behind_a_push_reaches_who_asked_first(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    serve_flow(owner, "tests.flow_classes.Faulty", "end")
    flow = serve(owner, client, "Pushing")
    with pytest.raises(RemoteFlowError, match="divisible"):
        flow.ask({}, TIMEOUT)


def test_the_owner_finds_what_a_flow_raised_in_his_log(two: list[Client], caplog: pytest.LogCaptureFixture) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    with pytest.raises(RemoteFlowError):
        serve(owner, client, "Faulty").ask({}, TIMEOUT)
    (told,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert told.startswith("flow ") and 'flow_classes.py", line' in told and "ZeroDivisionError: no number" in told


def test_a_chain_of_blocking_composites_completes_on_one_slot(users: Users, broker_url: str) -> None:
    (cl,) = users(1, broker_url)
    run_dispatch_worker_thread(cl, concurrency=1)
    length = 50
    serve_flow(cl, "tests.flow_classes.End", "flow0", singleton=True)
    for number in range(1, length + 1):
        serve_flow(cl, "tests.flow_classes.Chain", f"flow{number}", singleton=True)
        config = {"subflows_config": {"next": {"flow_endpoint": f"flow{number - 1}"}}}
        flow = get_flow_instance(cl, f"flow{number}", config_overrides=config)
    assert flow.ask({}, 60) == {"depth": length}


def test_parallel_dispatch_works_many_off_at_once(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner, concurrency=4)
    flow_classes.GATE.clear()
    flow = serve(owner, client, "Gated", parallel_dispatch=True)
    futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in range(4)]
    flow_classes.GATE.set()
    assert [future.get_data(TIMEOUT)["through"] for future in futures] == list(range(4))
    assert not [key for key in owner.read_keys("flows:") if key.endswith(":state")]


def test_several_workers_share_the_load(two: list[Client]) -> None:
    owner, client = two
    handles = run_dispatch_worker_threads(owner, 3)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    flows = [get_flow_instance(client, "counter", user_id=owner.user_id) for _ in range(16)]
    for round_ in range(1, 6):
        futures = [flow.get_reply_future(flow.package_input_message({})) for flow in flows]
        assert [future.get_data(TIMEOUT)["count"] for future in futures] == [round_] * len(flows)
        if round_ in (2, 3):
            handles.pop().stop()
    leases = {owner.read_entry(key)["worker"] for key in owner.read_keys("leases:")}
    assert leases


def test_several_dispatch_points(two: list[Client]) -> None:
    owner, client = two
    serve_flow(owner, "EchoFlowModule.EchoFlow", "slow", dispatch_point="slow_point")
    serve_flow(owner, "EchoFlowModule.EchoFlow", "fast")
    slow, fast = (get_flow_instance(client, name, user_id=owner.user_id) for name in ("slow", "fast"))
    run_dispatch_worker_thread(owner)
    waiting = slow.get_reply_future(slow.package_input_message({"a": 1}))
    assert fast.ask({"b": 2}, TIMEOUT) == {"b": 2} and not waiting.done()
    run_dispatch_worker_thread(owner, dispatch_point="slow_point")
    assert waiting.get_data(TIMEOUT) == {"a": 1}


def test_secrets_reach_the_flow_and_not_the_store(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner, secrets={"TOKEN": "canary-4711"})
    assert serve(owner, client, "Secretive").ask({}, TIMEOUT) == {"length": 11}
    assert not any(b"canary-4711" in entry.value for entry in owner.store.scan())


def test_a_received_message_is_sent_on_as_a_new_one(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "EchoFlowModule.EchoFlow")
    reply = flow.get_reply_future(flow.package_input_message({"a": 1})).get_message(TIMEOUT)
    assert isinstance(reply, FlowMessage) and reply.sender == owner.user_id
    assert flow.get_reply_future(reply).get_data(TIMEOUT) == {"a": 1}


def test_data_that_cannot_be_sent_names_its_key(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "EchoFlowModule.EchoFlow")
    with pytest.raises(SerializationError, match=r"'a\.b\[1\]': a set") as caught:
        flow.ask({"a": {"b": [1, {2}]}}, TIMEOUT)
    assert "".join(traceback.format_exception(caught.value)).count("Traceback") == 1
    with pytest.raises(MessageTooLargeError, match="1048576"):
        flow.ask({"a": b"x" * 2**20}, TIMEOUT)
    with pytest.raises(SerializationError, match="dict"):
        flow.package_input_message([1])  # type: ignore[arg-type]


def test_a_reply_that_cannot_be_sent_fails_the_call(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    with pytest.raises(RemoteFlowError, match=r"deep\.set"):
        serve(owner, client, "BadReply").ask({}, TIMEOUT)


def test_get_reply_is_for_flows(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "EchoFlowModule.EchoFlow")
    with pytest.raises(FlowError, match="client"):
        flow.get_reply(flow.package_input_message({}))


def test_a_deleted_endpoint_of_an_unknown_user_is_told_at_once(two: list[Client], users: Users) -> None:
    owner, client = two
    flow = serve(owner, client, "EchoFlowModule.EchoFlow")
    (stranger,) = users(1)
    with pytest.raises(InstanceNotFoundError):
        stranger.proxy(flow.address).get_reply_future(flow.package_input_message({}))


def test_stopping_finishes_what_runs_and_gives_back_the_rest(two: list[Client]) -> None:
    owner, client = two
    flow_classes.GATE.clear()
    worker = run_dispatch_worker_thread(owner, concurrency=1)
    flow = serve(owner, client, "Gated")
    futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in range(3)]
    stopping = threading.Thread(target=worker.stop)
    stopping.start()
    flow_classes.GATE.set()
    stopping.join(TIMEOUT)
    assert not stopping.is_alive()
    run_dispatch_worker_thread(owner)
    assert [future.get_data(TIMEOUT)["through"] for future in futures] == [0, 1, 2]


def test_many_threads_share_one_client(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "EchoFlowModule.EchoFlow", parallel_dispatch=True)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: flow.ask({"n": number}, TIMEOUT), range(200)))
    assert replies == [{"n": number} for number in range(200)]


def test_a_finished_turn_does_not_wait_for_the_next_one_of_its_batch(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "GatedFromTwo")
    flow_classes.GATE.clear()
    futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in (1, 2)]
    run_dispatch_worker_thread(owner)
    try:
        assert futures[0].get_data(TIMEOUT) == {"through": 1}
        assert not futures[1].done()
    finally:
        flow_classes.GATE.set()
    assert futures[1].get_data(TIMEOUT) == {"through": 2}


def test_what_a_slow_turn_holds_up_starts_elsewhere(two: list[Client]) -> None:
    """Parallel messages that were started together do not wait for each other."""
    owner, client = two
    flow = serve(owner, client, "GatedFromTwo", parallel_dispatch=True)
    flow_classes.GATE.clear()
    numbers = (2, 1, 1, 1)
    futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in numbers]
    run_dispatch_worker_thread(owner)
    try:
        for future in futures[1:]:
            assert future.get_data(TIMEOUT) == {"through": 1}
        assert not futures[0].done()
    finally:
        flow_classes.GATE.set()
    assert futures[0].get_data(TIMEOUT) == {"through": 2}


def test_a_cancel_reaches_a_queued_and_a_running_turn(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "Async")
    running, queued = (flow.get_reply_future(flow.package_input_message({"seconds": 3600})) for _ in range(2))
    run_dispatch_worker_thread(owner)
    queued.cancel()
    running.cancel()
    for future in (running, queued):
        with pytest.raises(CallCancelledError):
            client.reopen_future(future.key).get_data(TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"done": True}


def test_coroutines_ask_at_once(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "CounterFlowModule.CounterFlow")

    async def main() -> list[dict[str, Any]]:
        return await asyncio.gather(*(flow.ask_async({}, TIMEOUT) for _ in range(200)))

    assert [answer["count"] for answer in asyncio.run(main())] == list(range(1, 201))
    submitted = [flow.submit({}) for _ in range(50)]
    assert [future.get_data(TIMEOUT)["count"] for future in submitted] == list(range(201, 251))


def test_what_comes_while_too_much_is_in_hand_waits_sealed(two: list[Client], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "MAX_JOBS", 10)
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "Recorder")
    futures = [flow.submit({"number": number}) for number in range(300)]
    assert futures[-1].get_data(TIMEOUT) == {"seen": list(range(300))}
    assert all(future.get_data(TIMEOUT) for future in futures)


@pytest.mark.parametrize(("what", "told"), [("key", r"scores\.1"), ("deep", "nested"), ("many", "elements")])
def test_a_reply_that_could_not_be_read_fails_its_turn(two: list[Client], what: str, told: str) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    with pytest.raises(RemoteFlowError, match=told):
        serve(owner, client, "Odd").ask({"what": what}, TIMEOUT)


def test_a_message_that_could_not_be_read_is_not_sent(two: list[Client]) -> None:
    owner, client = two
    flow = serve(owner, client, "Odd")
    with pytest.raises(SerializationError, match="keys are str"):
        flow.submit({1: 2})  # type: ignore[dict-item]


def test_a_coroutine_that_exits_fails_alone(two: list[Client]) -> None:
    owner, client = two
    run_dispatch_worker_thread(owner)
    flow = serve(owner, client, "AsyncExit")
    with pytest.raises(RemoteFlowError, match="SystemExit"):
        flow.ask({"exit": True}, TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"done": True}


def test_who_waits_long_is_told_what_starts_a_worker(
    users: Users, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(futures, "SLOW_REPLY", 0.05)
    (owner,) = users(1)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "flow", dispatch_point="slow")
    flow = get_flow_instance(owner, "flow")
    with pytest.raises(CallTimeoutError):
        flow.get_reply_future({}).get_data(timeout=0.1)
    assert "`coflows worker all --dispatch-point slow`" in caplog.text


def test_who_waits_long_for_an_instance_is_told_what_starts_a_worker(
    users: Users, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mounting, "SLOW_ANSWER", 0.05)
    away, client = users(2)
    with pytest.raises(CallTimeoutError):
        get_flow_instance(client, "flow", away.user_id, timeout=0.2)
    assert f"{away.user_id} has not answered a request for flow" in caplog.text and "coflows worker all" in caplog.text
