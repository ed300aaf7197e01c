"""Flows whose turns run in processes: everything is as in a thread, and what dies or is cancelled ends alone."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coflows import Client
from coflows.dispatch.worker import DispatchWorker
from coflows.errors import (
    CallCancelledError,
    FlowConfigError,
    RemoteFlowError,
    WorkerDiedError,
    WorkerMemoryError,
)
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from tests.process_flows import Counter
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60
Users = Callable[..., list[Client]]


@pytest.fixture
def pair(users: Users) -> tuple[Client, Client]:
    """Who serves, and who asks."""
    alice, bob = users(2)
    run_dispatch_worker_thread(alice, secrets={"KEY": "value"})
    run_get_instance_worker_thread(alice)
    for name in ("Counter", "Odd", "Deadly", "Endless", "Asking", "AsyncAsking"):
        serve_flow(alice, f"tests.process_flows.{name}", name.lower())
    return alice, bob


def fetch(pair: tuple[Client, Client], endpoint: str, **more: Any) -> FlowProxy:
    return get_flow_instance(pair[1], endpoint, pair[0].user_id, **more)


def is_gone(pid: int) -> bool:
    """Wait for the end of a process."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor) as file:
        return bool(select.select([file], [], [], TIMEOUT)[0])


def test_a_turn_in_a_process_is_like_any_other(pair: tuple[Client, Client]) -> None:
    flow = fetch(pair, "counter")
    first, second = flow.ask({}, TIMEOUT), flow.ask({}, TIMEOUT)
    assert (first["count"], second["count"]) == (1, 2), "the state goes on"
    assert first["process"] != os.getpid() and second["process"] == first["process"], "processes are used again"
    assert first["kinds"] == ["a set"], "what only pickle holds is kept"
    assert first["secret"] == "value"
    assert first["instance"] == flow.get_instance_id()
    assert first["sender"] == pair[1].user_id
    assert first["key"] != second["key"]
    assert "token" not in first, "private keys do not leave"
    with pytest.raises(RemoteFlowError, match="LookupError: failed at 3"):
        flow.ask({"fail": True}, TIMEOUT)
    assert flow.ask({}, TIMEOUT)["count"] == 3, "what failed changed nothing"
    assert b"s3cret" not in b"".join(entry.value for entry in pair[0].store.scan("flows:counter:mounts"))


def test_the_state_outlives_its_worker(users: Users) -> None:
    (alice,) = users(1)
    serve_flow(alice, "tests.process_flows.Counter", "counter")
    with run_dispatch_worker_thread(alice):
        flow = get_flow_instance(alice, "counter")
        assert flow.ask({}, TIMEOUT)["count"] == 1
    with run_dispatch_worker_thread(alice):
        assert flow.ask({}, TIMEOUT)["count"] == 2


def test_errors_are_those_of_the_flow(pair: tuple[Client, Client], caplog: pytest.LogCaptureFixture) -> None:
    flow = fetch(pair, "odd")
    with pytest.raises(RemoteFlowError, match="OddError: 1 and 2") as raised:
        flow.ask({}, TIMEOUT)
    assert raised.value.error_type == "OddError" and raised.value.remote_traceback is None
    told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert any("odd" in one and 'process_flows.py", line' in one and "1 and 2" in one for one in told), told
    with pytest.raises(RemoteFlowError, match=r"TypeError: Odd.run returned a list"):
        flow.ask({"list": True}, TIMEOUT)
    with pytest.raises(RemoteFlowError) as own:
        get_flow_instance(pair[0], "odd").ask({}, TIMEOUT)
    assert "process_flows.py" in (own.value.remote_traceback or ""), "the owner sees where"


@pytest.mark.parametrize(
    ("how", "kind", "text"),
    [
        ("memory", WorkerMemoryError, "ran out of memory"),
        ("segfault", WorkerDiedError, "SIGSEGV"),
        ("exit", WorkerDiedError, "exited with code 3"),
    ],
)
def test_a_process_that_dies_fails_its_turn_alone(
    how: str, kind: type[Exception], text: str, pair: tuple[Client, Client]
) -> None:
    flow, neighbour = fetch(pair, "deadly"), fetch(pair, "counter")
    assert flow.ask({}, TIMEOUT) == {"count": 1}
    dying = flow.get_reply_future(flow.package_input_message({"how": how}))
    counts = [neighbour.get_reply_future(neighbour.package_input_message({})) for _ in range(5)]
    behind = flow.get_reply_future(flow.package_input_message({}))
    with pytest.raises(kind, match=text):
        dying.get_data(TIMEOUT)
    assert [future.get_data(TIMEOUT)["count"] for future in counts] == [1, 2, 3, 4, 5]
    assert behind.get_data(TIMEOUT) == {"count": 2}
    with pytest.raises(kind, match=text):
        pair[1].reopen_future(dying.key).get_data(TIMEOUT)


def test_a_cancel_ends_the_process(pair: tuple[Client, Client], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    flow = fetch(pair, "endless")
    future = flow.get_reply_future(flow.package_input_message({"pipe": str(tmp_path / "pipe")}))
    pid = int((tmp_path / "pipe").read_text())
    assert future.cancel()
    assert is_gone(pid)
    assert flow.ask({}, TIMEOUT) == {"done": True}
    with pytest.raises(CallCancelledError):
        pair[1].reopen_future(future.key).get_data(TIMEOUT)


def test_a_stopped_worker_ends_its_processes(users: Users, tmp_path: Path) -> None:
    """The turn is not told to have failed: the next worker begins it again."""
    os.mkfifo(tmp_path / "pipe")
    (alice,) = users(1)
    serve_flow(alice, "tests.process_flows.Endless", "endless")
    worker = DispatchWorker(alice, "coflows_dispatch")
    flow = get_flow_instance(alice, "endless")
    future = flow.get_reply_future(flow.package_input_message({"pipe": str(tmp_path / "pipe")}))
    first = int((tmp_path / "pipe").read_text())
    worker.stop(grace=0.0)
    assert is_gone(first) and not future.done()
    with run_dispatch_worker_thread(alice):
        second = int((tmp_path / "pipe").read_text())
        assert second != first and future.cancel() and is_gone(second)


def test_subflows_are_reached_through_the_turn(pair: tuple[Client, Client]) -> None:
    flow = fetch(pair, "asking")
    assert flow.ask({}, TIMEOUT)["count"] == 1
    futures = flow.ask({"how": "futures"}, TIMEOUT)
    assert futures["counts"] == [2, 3, 4, 5, 6]
    assert pair[0].reopen_future(futures["key"]).get_data(TIMEOUT)["count"] == 2
    assert flow.ask({"how": "push"}, TIMEOUT) == {"pushed": 7}
    assert flow.ask({"how": "send"}, TIMEOUT) == {}
    assert flow.ask({}, TIMEOUT)["count"] == 11, "three were sent, in order, when the turn was committed"
    failed = flow.ask({"how": "fail"}, TIMEOUT)
    assert failed["error"] == "RemoteFlowError" and "failed at 12" in failed["text"]
    with pytest.raises(RemoteFlowError, match="SerializationError"):
        flow.ask({"how": "unsendable"}, TIMEOUT)
    assert fetch(pair, "asyncasking").ask({}, TIMEOUT)["count"] == 1


def test_a_cancel_goes_down_the_tree(pair: tuple[Client, Client], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    overrides = {"subflows_config": {"next": {"flow_endpoint": "endless"}}}
    flow = get_flow_instance(pair[0], "asking", config_overrides=overrides)
    asked = flow.get_reply_future(flow.package_input_message({"pass": {"pipe": str(tmp_path / "pipe")}}))
    pid = int((tmp_path / "pipe").read_text())
    assert asked.cancel()
    assert is_gone(pid)
    outcome = flow.ask({"how": "cancel", "pass": {}}, TIMEOUT)
    assert outcome["cancelled"] == outcome["again"] and outcome["done"]


@pytest.mark.parametrize("kind", ["Link", "AsyncLink"])
def test_a_chain_of_processes_ends_on_a_worker_of_concurrency_1(kind: str, users: Users) -> None:
    (alice,) = users(1)
    run_dispatch_worker_thread(alice, concurrency=1)
    serve_flow(alice, "tests.process_flows.Counter", "link0")
    for number in range(1, 9):
        serve_flow(alice, f"tests.process_flows.{kind}", f"link{number}")
    overrides: dict[str, Any] = {}
    for number in range(8):
        overrides = {"subflows_config": {"next": {"flow_endpoint": f"link{number}", **overrides}}}
    assert get_flow_instance(alice, "link8", config_overrides=overrides).ask({}, TIMEOUT) == {"depth": 8}


def test_parallel_turns_and_a_class_of_main(tmp_path: Path) -> None:
    """A script of its own: its __main__ is not that of the processes."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import os
from coflows import AtomicFlow, start_users
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread

OFFSET = 40

class Adding(AtomicFlow):
    default_config = {"name": "Adding", "description": "Adds.", "runs_in": "process"}

    def run(self, input_message):
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"sum": OFFSET + input_message.data["n"], "own": os.getpid() != input_message.data["pid"],
                "count": self.flow_state["count"]}

(alice,) = start_users(1)
run_dispatch_worker_thread(alice)
serve_flow(alice, "__main__.Adding", "adding")
serve_flow(alice, "__main__.Adding", "parallel", parallel_dispatch=True)
for endpoint in ("adding", "parallel"):
    flow = get_flow_instance(alice, endpoint)
    for _ in range(2):
        print(flow.ask({"n": 2, "pid": os.getpid()}, 60))
alice.close()
"""
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=TIMEOUT)
    counts = [1, 2, 1, 1]
    assert done.stdout.splitlines() == [str({"sum": 42, "own": True, "count": count}) for count in counts], done.stderr


def test_what_is_wrong_in_the_config_is_told() -> None:
    with pytest.raises(FlowConfigError, match=r"runs_in in the config of .*Counter is 'fork'"):
        Counter.get_config(runs_in="fork")
    with pytest.raises(FlowConfigError, match="memory_limit in the config"):
        Counter.get_config(memory_limit="1G")


def test_many_turns_at_once(pair: tuple[Client, Client]) -> None:
    flows = [fetch(pair, "counter") for _ in range(6)]
    futures: list[Any] = []
    for _ in range(10):
        futures += [flow.get_reply_future(flow.package_input_message({})) for flow in flows]
    counts = [future.get_data(TIMEOUT)["count"] for future in futures]
    assert counts == [n for n in range(1, 11) for _ in flows]
