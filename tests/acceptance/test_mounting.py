"""A request mounts all its instances in one commit, or none; requests that meet each other or a change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from coflows import AtomicFlow, Client, FlowMessage
from coflows.broker.topology import door_queue
from coflows.errors import FlowInstanceError
from coflows.model.address import InstanceAddress
from coflows.model.failure import Failure
from coflows.model.messages import new_message_id
from coflows.model.wire import Fetch, FetchItem
from coflows.mounting import Mounter
from coflows.resolution import MountRequest
from coflows.serving import get_flow_instance, recursive_delete_flow_instance, serve_flow, unserve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
Users = Callable[..., list[Client]]
CLASSES = "tests.flow_classes"
OPEN = threading.Event()
OPEN.set()
KNOCKED = threading.Semaphore(0)


class Held(AtomicFlow):
    """Its config is not read to the end while the door is closed."""

    default_config = {"name": "Held", "description": "Held."}

    @classmethod
    def check_config(cls, config: Mapping[str, Any]) -> None:
        KNOCKED.release()
        OPEN.wait(TIMEOUT)

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"depth": 0}


@pytest.fixture
def closed(users: Users) -> Iterator[tuple[Client, Client]]:
    """Somebody whose endpoint "end" is held, and somebody whose "chain" ends there."""
    owner, client = users(2)
    run_get_instance_worker_thread(owner)
    run_dispatch_worker_thread(owner)
    run_dispatch_worker_thread(client)
    serve_flow(owner, f"{__name__}.Held", "end")
    serve_flow(client, f"{CLASSES}.Chain", "chain")
    while KNOCKED.acquire(blocking=False):
        pass
    OPEN.clear()
    yield owner, client
    OPEN.set()


def knocks(count: int) -> None:
    for _ in range(count):
        assert KNOCKED.acquire(timeout=TIMEOUT)


def over(owner: Client) -> dict[str, Any]:
    return {"subflows_config": {"next": {"user_id": owner.user_id}}}


def instances(cl: Client) -> list[str]:
    return cl.read_keys("instance_metadata:")


def commits(cl: Client, since: int = 0) -> int:
    """How many commits of anybody else there were since."""
    return cl.store.commit({"probe": b""}) - since - 1


def test_a_tree_is_mounted_and_released_in_one_commit(users: Users) -> None:
    owner, client = users(2)
    run_get_instance_worker_thread(owner)
    for name in ("left", "right"):
        serve_flow(owner, f"{CLASSES}.End", name)
    serve_flow(owner, f"{CLASSES}.Two", "two")
    kept = threading.Event()
    owner.store.watch("keeping:", lambda _keys: None if owner.read_keys("keeping:") else kept.set())
    flow = get_flow_instance(client, "two", owner.user_id)
    assert len(instances(owner)) == 3
    assert len({entry.version for entry in owner.store.scan("instance_metadata:")}) == 1
    assert kept.wait(TIMEOUT)
    before = commits(owner, 0) + 1
    recursive_delete_flow_instance(client, flow.get_instance_id())
    assert instances(owner) == [] and commits(owner, before) == 1
    assert owner.read_keys("flows:two:mounts:") == owner.read_keys("flows:left:mounts:") == []


def ask(client: Client, owner: Client, *items: FetchItem) -> dict[str, Any]:
    request_id = new_message_id()
    fetch = Fetch(request_id=request_id, session=client.session.id, items=list(items), deadline=time.time() + TIMEOUT)
    reply = client.session.request(door_queue(owner.user_id).name, owner.user_id, request_id, fetch)
    answer = reply.result(TIMEOUT)
    if answer.failure is not None:
        raise Failure.from_dict(answer.failure).to_error("The owner")
    assert answer.value is not None
    return dict(answer.value["instances"])


def test_the_items_of_a_request_are_mounted_together_or_not_at_all(users: Users) -> None:
    owner, client = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{CLASSES}.End", "end")
    good = [FetchItem(key=key, flow_endpoint="end") for key in ("a", "b", "c")]
    before = commits(owner) + 1
    assert set(ask(client, owner, *good)) == {"a", "b", "c"}
    assert len(instances(owner)) == 3 and commits(owner, before) == 1
    with pytest.raises(FlowInstanceError, match=rf"'x' \(nowhere at user {owner.user_id}\) -> endpoint_not_found"):
        ask(client, owner, *good, FetchItem(key="x", flow_endpoint="nowhere"))
    with pytest.raises(FlowInstanceError, match="one key twice"):
        ask(client, owner, good[0], good[0])
    assert len(instances(owner)) == 3


def test_siblings_share_a_singleton_that_none_had_mounted(users: Users) -> None:
    owner, client = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "one", singleton=True)
    other = FetchItem(key="c", flow_endpoint="one", config_overrides={"start": 5})
    found = ask(client, owner, *(FetchItem(key=key, flow_endpoint="one") for key in ("a", "b")), other)
    assert found["a"]["address"] == found["b"]["address"] == found["c"]["address"]
    assert len(instances(owner)) == 1
    assert "start" in found["c"]["warnings"][0] and not found["b"]["warnings"]


def test_an_endpoint_that_changes_meanwhile_is_looked_at_again(closed: tuple[Client, Client]) -> None:
    owner, client = closed
    with ThreadPoolExecutor() as pool:
        fetched = pool.submit(get_flow_instance, client, "chain", config_overrides=over(owner))
        knocks(1)
        unserve_flow(client, "chain")
        serve_flow(client, f"{CLASSES}.Chain", "chain")
        taken_back, left = threading.Event(), threading.Event()
        owner.store.watch("released:", lambda _keys: taken_back.set())
        owner.store.watch("instance_metadata:", lambda _keys: left.set() if len(instances(owner)) == 1 else None)
        OPEN.set()
        flow = fetched.result(TIMEOUT)
    assert flow.ask({}, TIMEOUT) == {"depth": 1}, "its subflow is not the one that was taken back"
    assert taken_back.wait(TIMEOUT) and left.wait(TIMEOUT)
    assert len(instances(client)) == 1


@pytest.mark.parametrize("singleton", [False, True])
def test_a_request_that_is_worked_off_twice_at_once(closed: tuple[Client, Client], singleton: bool) -> None:
    """Whoever comes second must not take back the subflows: they are the first one's too."""
    owner, client = closed
    if singleton:
        unserve_flow(client, "chain")
        client.update_entry("flows:chain:singleton", True)
        client.update_entry("flows:chain:init", True)
    request = MountRequest("chain", "local", new_message_id(), time.time() + TIMEOUT, over(owner))
    with ThreadPoolExecutor() as pool:
        both: list[Future[Any]] = [pool.submit(Mounter(client).mount, [request]) for _ in range(2)]
        knocks(2)
        OPEN.set()
        first, second = (one.result(TIMEOUT)[0].address for one in both)
    assert isinstance(first, InstanceAddress) and first == second
    assert client.proxy(first).ask({}, TIMEOUT) == {"depth": 1}
    assert owner.read_keys("released:") == []
    assert len(instances(client)) == len(instances(owner)) == 1
