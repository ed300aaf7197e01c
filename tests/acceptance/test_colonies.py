"""The programs that a user of colonies writes, each with its result."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from coflows import Client, connect
from coflows.errors import (
    AccessDeniedError,
    CallTimeoutError,
    InstanceNotFoundError,
    MessageTooLargeError,
    WorkflowError,
    WorkflowFailedError,
    WorkflowInvalidError,
)
from coflows.identity.home import Home
from coflows.workflow import (
    Colonies,
    Configuration,
    Executor,
    FlowSpec,
    ProcessGraph,
    Workflow,
    foreach,
    func_spec,
    join,
    needs,
    step,
)
from coflows.workflow.colonies import asking, submission_flow
from coflows.workflow.graph.states import GraphState, ProcessState
from tests.waiting import until

Users = Callable[..., list[Client]]
COLONY = "test"
TIMEOUT = 60
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cl(users: Users) -> Client:
    (cl,) = users(1)
    Colonies(cl).add_colony(COLONY)
    return cl


@pytest.fixture
def client(cl: Client) -> Iterator[Colonies]:
    """A colony whose owner runs an executor, as in the programs."""
    with Executor(cl, COLONY, "python-executor", concurrency=2):
        yield Colonies(cl)


def spec(func: Any, args: Any = (), after: tuple[str, ...] = (), **more: Any) -> Any:
    more = {"maxexectime": 100, "maxwaittime": 100, "executortype": "python-executor", **more}
    made = func_spec(func=func, args=list(args), colonyname=COLONY, **more)
    made.conditions.dependencies.extend(after)
    return made


def submitted(client: Colonies, *specs: Any) -> ProcessGraph:
    workflow = Workflow(colonyname=COLONY)
    workflow.functionspecs.extend(specs)
    return client.submit_workflow(workflow)


def outputs(client: Colonies, graph: ProcessGraph) -> dict[str, Any]:
    found = [client.get_process(one) for one in client.get_processgraph(graph.processgraphid).processids]
    return {process.name: process.output for process in found}


def gen_nums(ctx: Any = {}) -> Any:  # noqa: B006
    return 1, 2


def sum_nums(n1: int, n2: int, ctx: Any = {}) -> int:  # noqa: B006
    return n1 + n2


# -- the six programs ------------------------------------------------------------------------------------------------


def test_two_steps(client: Colonies) -> None:
    graph = submitted(client, spec(gen_nums), spec(sum_nums, after=("gen_nums",)))
    end = client.wait(graph, TIMEOUT)
    assert end.state == GraphState.SUCCESS == "SUCCESS"
    assert outputs(client, graph) == {"gen_nums": (1, 2), "sum_nums": 3}


def test_several_dependencies(client: Colonies) -> None:
    def fetch_a(ctx: Any = {}) -> Any:  # noqa: B006
        return {"source": "A", "value": 10}

    def fetch_b(ctx: Any = {}) -> Any:  # noqa: B006
        return {"source": "B", "value": 20}

    def merge(a: Any, b: Any, ctx: Any = {}) -> Any:  # noqa: B006
        return a["value"] + b["value"]

    def ordered(a: Any, b: Any) -> Any:
        return [a["source"], b["source"]]

    backwards = spec(ordered, after=("fetch_b", "fetch_a"))
    graph = submitted(client, spec(fetch_a), spec(fetch_b), spec(merge, after=("fetch_a", "fetch_b")), backwards)
    assert client.wait(graph, TIMEOUT).state == "SUCCESS"
    found = outputs(client, graph)
    assert found["merge"] == 30 and found["ordered"] == ["B", "A"], "parents in the order of the dependencies"


def test_map_reduce_adds_children_while_it_runs(client: Colonies) -> None:
    def map(ctx: Any = {}) -> None:  # noqa: B006
        code = """def gen_nums(ctx={}):
    return 1, 2"""
        colonies, processgraphid = ctx["client"], ctx["process"].processgraphid
        processgraph = colonies.get_processgraph(processgraphid)
        reduce_process = colonies.find_process("reduce", processgraph.processids)
        insert = True
        for i in range(5):
            f = func_spec(
                func="gen_nums",
                args=[],
                colonyname=ctx["colonyname"],
                executortype="python-executor",
                maxexectime=100,
                maxwaittime=100,
                code=code,
            )
            colonies.add_child(
                processgraphid, ctx["process"].processid, reduce_process.processid, f, f"gen_nums_{i}", insert
            )
            insert = False

    def reduce(*nums: int, ctx: Any = {}) -> int:  # noqa: B006
        total = 0
        for n in nums:
            total += n
        return total

    graph = submitted(client, spec(map), spec(reduce, after=("map",)))
    end = client.wait(graph, TIMEOUT)
    assert end.state == "SUCCESS", end.reason
    assert outputs(client, graph)["reduce"] == 15
    assert len(end.processids) == 7


def test_monitoring(client: Colonies) -> None:
    graph = submitted(client, spec(gen_nums), spec(sum_nums, after=("gen_nums",)))
    client.wait(graph, TIMEOUT)
    processgraph = client.get_processgraph(graph.processgraphid)
    lines = [f"State: {processgraph.state}", f"Processes: {len(processgraph.processids)}"]
    for pid in processgraph.processids:
        process = client.get_process(pid)
        lines.append(f"  {process.spec.funcname}: {process.state}")
    assert lines == ["State: SUCCESS", "Processes: 2", "  gen_nums: SUCCESS", "  sum_nums: SUCCESS"]
    assert client.find_process("sum_nums", processgraph.processids).output == 3
    listed = client.get_processgraphs(COLONY)
    assert [one.processgraphid for one in listed] == [graph.processgraphid]
    assert client.get_processgraphs(COLONY, ["FAILED"]) == []
    assert listed[0].initiator and listed[0].submitted_at <= processgraph.ended_at


def test_errors_and_retries(client: Colonies, tmp_path: Path) -> None:
    def flaky(path: str, ctx: Any = {}) -> int:  # noqa: B006
        with open(path, "a+") as file:  # noqa: PTH123
            file.seek(0)
            tries = len(file.read())
            file.write("x")
        if tries < 3:
            raise OSError(f"try {tries} failed")
        return tries

    def after(tries: int) -> int:
        return tries * 10

    good = submitted(
        client, spec(flaky, [str(tmp_path / "good")], maxretries=3, backoff=0.01), spec(after, after=("flaky",))
    )
    bad = submitted(client, spec(flaky, [str(tmp_path / "bad")], maxretries=2), spec(after, after=("flaky",)))
    assert client.wait(good, TIMEOUT).state == "SUCCESS"
    assert outputs(client, good) == {"flaky": 3, "after": 30}
    end = client.wait(bad, TIMEOUT)
    assert end.state == "FAILED" and end.reason == "Step flaky failed: OSError: try 2 failed"
    states = {row.name: row.state for row in end.rows}
    assert states == {"flaky": ProcessState.FAILED, "after": ProcessState.UPSTREAM_FAILED}
    assert (tmp_path / "bad").read_text() == "xxx", "one try and two more"


@pytest.fixture
def executor(home: Path, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts executors as processes; the users are made before."""
    monkeypatch.setenv("COFLOWS_BROKER_URL", broker_url)
    with ExitStack() as exit_stack:

        def start(user: str, *options: str) -> subprocess.Popen[bytes]:
            command = [sys.executable, "-m", "workers.executor", "--user", user, "--colony", COLONY, *options]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ, cwd=ROOT)
            assert process.stdout is not None

            def end() -> None:
                process.kill()
                process.wait()
                assert process.stdout is not None
                process.stdout.close()

            exit_stack.callback(end)
            assert process.stdout.readline().startswith(b"Ready")
            return process

        yield start


def test_across_platforms(home: Path, executor: Callable[..., subprocess.Popen[bytes]]) -> None:
    types = ("container-executor", "hpc-executor", "cloud-executor")
    ids = {name: Home(home).create_user(name).user_id for name in ("owner", "one", "two", "three")}
    with connect("owner") as owner:
        client = Colonies(owner)
        client.add_colony(COLONY)
        processes = {}
        for name, kind in zip(("one", "two", "three"), types, strict=True):
            client.allow(COLONY, ids[name], execute=True)
            options = ("--type", kind, "--owner", owner.user_id, "--functions", "tests.colony_functions")
            processes[kind] = executor(name, *options)
        wf = Workflow(colonyname=COLONY)
        wf.functionspecs.append(spec("fetch", ["dataset"], executortype=types[0]))
        wf.functionspecs.append(spec("process", after=("fetch",), executortype=types[1]))
        wf.functionspecs.append(spec("store", after=("process",), executortype=types[2]))
        graph = client.submit_workflow(wf)
        end = client.wait(graph, TIMEOUT)
        assert end.state == "SUCCESS", end.reason
        found = [client.get_process(pid) for pid in end.processids]
        assert [one.executor for one in found] == [ids["one"], ids["two"], ids["three"]]
        assert found[2].output == {
            "stored": 6,
            "fetched_by": processes[types[0]].pid,
            "stored_by": processes[types[2]].pid,
        }


# -- values ----------------------------------------------------------------------------------------------------------


def test_values_of_all_kinds_are_passed_on(client: Colonies) -> None:
    values = [None, 0, -1.5, "text", b"bytes", [], {}, [1, [2, None]], {"a": {"b": [None, {}]}}, True]
    for number, value in enumerate(values):

        def give(value: Any) -> Any:
            return value

        def take(value: Any) -> Any:
            return {"taken": value}

        graph = submitted(client, spec(give, [value], nodename=f"give{number}"), spec(take, after=(f"give{number}",)))
        assert client.wait(graph, TIMEOUT).state == "SUCCESS"
        assert outputs(client, graph) == {f"give{number}": value, "take": {"taken": value}}


def test_what_cannot_be_sent_fails_its_step(client: Colonies) -> None:
    def give() -> Any:
        return object()

    end = client.wait(submitted(client, spec(give, maxretries=3)), TIMEOUT)
    assert end.state == "FAILED" and "SerializationError" in end.reason and "'output': an object" in end.reason


# -- what is refused -------------------------------------------------------------------------------------------------


def test_graphs_that_are_none_are_refused_before_anything_runs(client: Colonies) -> None:
    with pytest.raises(WorkflowInvalidError, match=r"a -> b -> a|b -> a -> b"):
        submitted(client, spec("f", nodename="a", after=("b",)), spec("f", nodename="b", after=("a",)))
    with pytest.raises(WorkflowInvalidError, match="Two steps"):
        submitted(client, spec("f"), spec("f"))
    with pytest.raises(WorkflowInvalidError, match="missing"):
        submitted(client, spec("f", after=("missing",)))
    assert client.get_processgraphs(COLONY) == []
    for unknown in (f"{COLONY}/12345678-1234-1234-1234-123456789012",):
        with pytest.raises(InstanceNotFoundError):
            client.get_processgraph(unknown)


# -- limits ----------------------------------------------------------------------------------------------------------


def test_what_nobody_takes_fails_and_what_takes_too_long_is_stopped(cl: Client, client: Colonies) -> None:
    nobody = submitted(client, spec("f", executortype="nobody", maxwaittime=0.3))
    end = client.wait(nobody, TIMEOUT)
    assert end.state == "FAILED" and "no executor of type nobody" in end.reason
    with Executor(cl, COLONY, "slow", runs_in="process") as slow:
        slow.register(_never, "never")
        graph = submitted(client, spec("never", executortype="slow", maxexectime=0.5, maxretries=1))
        end = client.wait(graph, TIMEOUT)
        assert end.state == "FAILED" and "maxexectime" in end.reason
        assert client.get_process(end.processids[0]).attempt == 2
        after = submitted(client, spec(gen_nums, executortype="slow"))
        assert client.wait(after, TIMEOUT).state == "SUCCESS", "its place is free again"
    runs = [one.processgraphid.split("/")[1] for one in client.get_processgraphs(COLONY)]
    assert [key for key in cl.read_keys("due:") if key.rpartition(":")[2] in runs] == [], "no timer of theirs is left"


def test_deadlines_outlive_whoever_coordinates(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(asking, "LONG", 0.0)
    Home(home).create_user("owner")
    with connect("owner") as cl:
        client = Colonies(cl)
        client.add_colony(COLONY)
        graph = submitted(client, spec("f", executortype="nobody", maxwaittime=1), spec("g", after=("f",)))
        assert client.get_processgraph(graph.processgraphid).state == "WAITING"
    with connect("owner") as cl:
        end = Colonies(cl).wait(graph, TIMEOUT)
        assert end.state == "FAILED" and "maxwaittime" in end.reason
    assert "waits for an executor of type nobody: python -m workers.executor --colony test" in caplog.text


def _never() -> None:
    threading.Event().wait()


def test_cancel_reaches_a_running_step(client: Colonies, cl: Client) -> None:
    begun, gate = threading.Event(), threading.Event()

    def wait_for_gate() -> None:
        begun.set()
        gate.wait(TIMEOUT)

    with Executor(cl, COLONY, "waiting") as waiting:
        waiting.register(wait_for_gate)
        graph = submitted(
            client, spec("wait_for_gate", executortype="waiting"), spec("count", after=("wait_for_gate",))
        )
        assert begun.wait(TIMEOUT)
        with pytest.raises(WorkflowError, match="not over"):
            client.remove(graph.processgraphid)
        removed, kept = client.removeall(COLONY)
        assert removed == [] and kept == [(graph.processgraphid, "it is not over")]
        with pytest.raises(CallTimeoutError):
            client.wait(graph, 0.1)
        client.cancel(graph.processgraphid)
        end = client.wait(graph, TIMEOUT)
        assert end.state == "CANCELLED" and {row.state for row in end.rows} == {ProcessState.CANCELLED}
        again = submitted(client, spec(gen_nums, executortype="waiting"))
        assert client.wait(again, TIMEOUT).state == "SUCCESS", "the slot is free while the thread goes on unheard"
        gate.set()


def test_an_executor_that_comes_later_gets_what_waits(cl: Client) -> None:
    client = Colonies(cl)
    graph = submitted(client, spec(gen_nums), spec(sum_nums, after=("gen_nums",)))
    seen: list[int] = []
    with Executor(cl, COLONY, "python-executor"):
        end = client.wait(graph, TIMEOUT, progress=lambda now: seen.append(now.done))
    assert end.state == "SUCCESS" and seen == sorted(seen) and seen[-1] == 2


def test_what_a_run_is_told_is_in_no_order(cl: Client, client: Colonies) -> None:
    """What is kept in order waits for what was sent before, and is refused when it comes too late: a reply that nobody
    waits for in this moment would be lost with it."""
    graph = submitted(client, *(spec(gen_nums, nodename=f"gen{number}") for number in range(5)))
    assert client.wait(graph, TIMEOUT).state == "SUCCESS"
    run = graph.processgraphid.split("/")[1]
    partitions = {one for one in cl.read_keys("order:") if run in one}
    assert not partitions and [key for key in cl.read_keys("done:") if run in key], "it was told"


def test_nothing_is_left_after_remove(cl: Client, client: Colonies) -> None:
    graphs = [submitted(client, spec(gen_nums), spec(sum_nums, after=("gen_nums",))) for _ in range(3)]
    for graph in graphs:
        client.wait(graph, TIMEOUT)
    assert client.remove(graphs[0].processgraphid) and not client.remove(graphs[0].processgraphid)
    removed, kept = client.removeall(COLONY)
    assert sorted(removed) == sorted(graph.processgraphid for graph in graphs[1:]) and kept == []
    assert client.get_processgraphs(COLONY) == []
    runs = [graph.processgraphid.split("/")[1] for graph in graphs]
    left = [key for key in cl.read_keys() if any(run in key for run in runs)]
    assert left == []
    changed = threading.Event()
    watch = cl.store.watch("done:", lambda _keys: changed.set())
    while steps := [key for key in cl.read_keys("done:") if _executor_flow(cl) in key]:
        assert changed.wait(TIMEOUT), f"the executor remembers {len(steps)} steps"
        changed.clear()
    watch.close()


def _executor_flow(cl: Client) -> str:
    keys = [key for key in cl.read_keys("flows:executor.") if key.endswith(":init") and ":mounts:" in key]
    (key,) = [key for key in keys if ".control:" not in key]
    return key.split(":")[4]


# -- large ones ------------------------------------------------------------------------------------------------------


def test_a_workflow_may_be_larger_than_a_message(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COFLOWS_MAX_MESSAGE_BYTES", "20000")
    Home(home).create_user("owner")

    def echo(text: str) -> str:
        return text

    names = [f"echo{number}" for number in range(100)]
    texts = [f"{name} {'x' * 1000}" for name in names]
    with connect("owner") as cl:
        client = Colonies(cl)
        client.add_colony(COLONY)
        left = len(cl.read_keys("records:"))
        code = "def echo(text):\n    return text"
        parts = [spec("echo", [text], nodename=name, code=code) for name, text in zip(names, texts, strict=True)]
        all_of_them = func_spec("never", executortype="python-executor")
        all_of_them.conditions.dependencies += names
        with pytest.raises(WorkflowInvalidError, match="Two steps"):
            submitted(client, *parts, *parts)
        with pytest.raises(MessageTooLargeError):
            submitted(client, spec("echo", ["x" * 20_000]))
        assert len(cl.read_keys("records:")) == left, "nothing was sent"
        with monkeypatch.context() as patched:
            patched.setattr(submission_flow, "DROP_AFTER", 0.0)
            part = {"ask": "part", "submission": "1" * 32, "number": 0, "specs": [parts[0].to_dict()]}
            client._ask_colony(COLONY, part)
        kept = lambda: [key for key in cl.read_keys("records:") if ":p:" in key or ":u:" in key]  # noqa: E731
        until(cl.store, "records:", lambda: not kept(), "a part of what nobody submitted")
        with pytest.raises(WorkflowInvalidError, match="parts"):
            client._ask_colony(COLONY, {"ask": "submit", "submission": "0" * 32, "parts": 2})
        with Executor(cl, COLONY, "python-executor", concurrency=4):
            graph = submitted(client, *parts, all_of_them)
            assert len(graph.rows) == 101
            end = client.wait(graph, TIMEOUT)
        assert end.state == "FAILED" and "Step never failed: its inputs cannot be sent: The message has" in end.reason
        assert [row.name for row in end.rows] == [*names, "never"], "in order, though told in pages"
        assert client.get_outputs(graph.processgraphid, names) == dict(zip(names, texts, strict=True))
        assert client.remove(graph.processgraphid)
        until(cl.store, "records:", lambda: not kept(), "a part of what was submitted")


# -- guests ----------------------------------------------------------------------------------------------------------


def test_guests_do_what_they_are_allowed(users: Users) -> None:
    owner, submitter, worker, stranger = users(4)
    client = Colonies(owner)
    client.add_colony(COLONY)
    client.allow(COLONY, submitter.user_id, submit=True)
    client.allow(COLONY, worker.user_id, execute=True)
    guest = Colonies(submitter, owner=owner.user_id)
    for other in (Colonies(stranger, owner=owner.user_id), Colonies(worker, owner=owner.user_id)):
        with pytest.raises(AccessDeniedError):
            submitted(other, spec(gen_nums))
    with Executor(worker, COLONY, "python-executor", owner=owner.user_id, trust=[submitter.user_id]):
        graph = submitted(guest, spec(gen_nums), spec(sum_nums, after=("gen_nums",)))
        assert guest.wait(graph, TIMEOUT).state == "SUCCESS"
        assert outputs(guest, graph)["sum_nums"] == 3
        assert guest.get_processgraph(graph.processgraphid).initiator == submitter.user_id
        with pytest.raises(AccessDeniedError):
            Colonies(stranger, owner=owner.user_id).get_processgraph(graph.processgraphid)
        with pytest.raises(AccessDeniedError):
            Colonies(stranger, owner=owner.user_id).cancel(graph.processgraphid)
        mine = submitted(client, spec(gen_nums))
        end = client.wait(mine, TIMEOUT)
        assert end.state == "FAILED" and "AccessDeniedError" in end.reason, "not even the owner is trusted unasked"
    client.allow(COLONY, submitter.user_id)
    with pytest.raises(AccessDeniedError):
        submitted(guest, spec(gen_nums))


def test_code_counts_only_as_its_author_signed_it(users: Users) -> None:
    owner, worker = users(2)
    client = Colonies(owner)
    client.add_colony(COLONY)
    client.allow(COLONY, worker.user_id, execute=True)
    with Executor(worker, COLONY, "python-executor", owner=owner.user_id, trust=[worker.user_id]):
        forged = spec("gen_nums", code="def gen_nums(): return 1")
        signed = forged.signed(owner.identity, owner.user_id, COLONY).model_copy(update={"code_by": worker.user_id})
        data = {"ask": "submit", "specs": [signed.to_dict()]}
        made = client._ask_colony(COLONY, data)["processgraphid"]
        end = client.wait(made, TIMEOUT)
        assert end.state == "FAILED" and "was not signed" in end.reason


def test_an_executor_that_may_not_gets_nothing(users: Users) -> None:
    owner, stranger = users(2)
    client = Colonies(owner)
    client.add_colony(COLONY)
    with Executor(stranger, COLONY, "python-executor", owner=owner.user_id, trust=[owner.user_id]):
        end = client.wait(submitted(client, spec(gen_nums, maxwaittime=0.5)), TIMEOUT)
        assert end.state == "FAILED" and "maxwaittime" in end.reason


# -- priority --------------------------------------------------------------------------------------------------------


def test_what_is_more_urgent_overtakes_what_waits(users: Users) -> None:
    owner, guest = users(2)
    client = Colonies(owner)
    client.add_colony(COLONY)
    client.allow(COLONY, guest.user_id, execute=True)
    order: list[str] = []
    gate, begun = threading.Event(), threading.Semaphore(0)

    def held(*before: Any, ctx: Any) -> None:
        begun.release()
        gate.wait(TIMEOUT)
        order.append(ctx["process"].name)

    def noted(*before: Any, ctx: Any) -> None:
        order.append(ctx["process"].name)

    executors = [Executor(one, COLONY, "python-executor", owner=owner.user_id) for one in (owner, guest)]
    first = spec("noted", executortype="first")
    slow = [spec("held", nodename=f"held{number}") for number in range(2)]
    low = [spec("noted", nodename=f"low{number}") for number in range(20)]
    urgent = spec("noted", nodename="urgent", after=("noted",), priority=1)
    with ExitStack() as exit_stack:
        for executor in executors:
            executor.register(held)
            executor.register(noted)
            exit_stack.enter_context(executor)
        room = lambda: sum(":e:python-executor:" in key for key in owner.read_keys("records:"))  # noqa: E731
        until(owner.store, "records:", lambda: room() == 2, "an executor on its way")
        graph = submitted(client, *slow, *low, first, urgent)
        for _ in slow:
            assert begun.acquire(timeout=TIMEOUT), "all places are taken, and the others wait"
        with Executor(owner, COLONY, "first") as other:
            other.register(noted)
            seen: list[str] = []

            def look(now: ProcessGraph) -> None:
                seen[:] = [row.name for row in now.rows if row.state is ProcessState.SUCCESS]
                if "noted" in seen:
                    gate.set()  # The urgent one became ready after the others were.

            end = client.wait(graph, TIMEOUT, progress=look)
    assert end.state == "SUCCESS", end.reason
    names = [name for name in order if name.startswith(("low", "urgent"))]
    assert "urgent" in names[:2], names
    assert names.index("low0") < names.index("low19"), "of equal priority, in order"


# -- classes on executors --------------------------------------------------------------------------------------------


class Squares(FlowSpec):
    @step
    @foreach()
    def numbers(self, limit: int) -> list[int]:
        return list(range(limit))

    @step(executortype="others", maxretries=1)
    @needs(predecessors=[numbers])
    def square(self, number: int) -> int:
        if number == 99:
            raise ValueError("too large")
        return number**2 + len(self.name)

    @step
    @needs(predecessors=[square])
    @join()
    def total(self, squares: list[int]) -> int:
        return sum(squares)


def test_a_flow_spec_runs_on_executors(client: Colonies, cl: Client) -> None:
    with Executor(cl, COLONY, "others", concurrency=4):
        flow = Squares("four", 5)
        flow.run(cl=cl, colonyname=COLONY, executortype="python-executor")
        assert flow.get_result("square") == [4, 5, 8, 13, 20] and flow.get_result("total") == 50
        assert client.get_processgraphs(COLONY) == [], "and leaves nothing behind"
        failing = Squares("four", 100, Configuration(max_step_inputs=100, fail_fast=True))
        with pytest.raises(WorkflowFailedError, match=r"Step square failed: .*too large"):
            failing.run(cl=cl, colonyname=COLONY, executortype="python-executor")
    with pytest.raises(WorkflowError, match="which executors run step numbers"):
        Squares("four", 5).run(cl=cl, colonyname=COLONY)


# -- on services of many machines --------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
@pytest.mark.postgres
def test_on_rabbitmq_and_postgresql(users: Users, amqp_url: str, postgres_url: str) -> None:
    owner, guest = users(2, amqp_url, postgres_url)
    client = Colonies(owner)
    client.add_colony(COLONY)
    client.allow(COLONY, guest.user_id, execute=True)
    options = {"owner": owner.user_id, "trust": [owner.user_id], "concurrency": 4}
    with Executor(guest, COLONY, "python-executor", **options), Executor(guest, COLONY, "others", **options):
        flow = Squares("four", 30)
        flow.run(cl=owner, colonyname=COLONY, executortype="python-executor", run_id="once")
        assert flow.get_result("total") == sum(number**2 + 4 for number in range(30))
        graph = submitted(client, spec(gen_nums), spec(sum_nums, after=("gen_nums",), maxexectime=50))
        assert client.wait(graph, TIMEOUT).state == "SUCCESS" and outputs(client, graph)["sum_nums"] == 3
        stuck = submitted(client, spec("f", executortype="nobody", maxwaittime=100))
        client.cancel(stuck.processgraphid)
        assert client.wait(stuck, TIMEOUT).state == "CANCELLED"
        removed, kept = client.removeall(COLONY)
        assert len(removed) == 3 and kept == []
        runs = [one.split("/")[1] for one in removed]
        assert [key for key in owner.read_keys() if any(run in key for run in runs)] == []


# -- executors that come and go --------------------------------------------------------------------------------------


def test_executors_of_several_users_share_the_work_and_what_one_leaves_another_does(users: Users) -> None:
    owner, one, other = users(3)
    client = Colonies(owner)
    client.add_colony(COLONY)
    gate, begun = threading.Event(), threading.Semaphore(0)

    def held() -> str:
        begun.release()
        gate.wait(TIMEOUT)
        return "held"

    for guest in (one, other):
        client.allow(COLONY, guest.user_id, execute=True)
    graph = submitted(client, *(spec("held", nodename=f"held{number}") for number in range(4)))
    first = Executor(one, COLONY, "python-executor", owner=owner.user_id)
    first.register(held)
    second = Executor(other, COLONY, "python-executor", owner=owner.user_id)
    second.register(held)
    with first, second:
        assert begun.acquire(timeout=TIMEOUT)
        there = lambda: sum(":e:python-executor:" in key for key in owner.read_keys("records:"))  # noqa: E731
        until(owner.store, "records:", lambda: there() == 2, "an executor on its way")
        more = submitted(client, *(spec("held", nodename=f"held{number}") for number in range(4)))
        assert begun.acquire(timeout=TIMEOUT), "both have something to do"
        first.stop(grace=0)
        gate.set()
        ends = [client.wait(each, TIMEOUT) for each in (graph, more)]
        assert [end.state for end in ends] == ["SUCCESS", "SUCCESS"], ends
        found = [client.get_process(processid) for end in ends for processid in end.processids]
        assert {process.output for process in found} == {"held"}
        assert other.user_id in {process.executor for process in found}
