"""Retries, deadlines, priorities, cancelling of a FlowSpec's steps; processes; served flows as steps; watchers."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from coflows import AtomicFlow, Client, FlowMessage
from coflows.errors import WorkflowCancelledError, WorkflowError, WorkflowFailedError
from coflows.serving import serve_flow
from coflows.workflow import (
    Configuration,
    FlowSpec,
    Progress,
    Published,
    foreach,
    join,
    needs,
    read_published,
    remote,
    step,
    watch_published,
)
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread


def test_a_failed_step_is_tried_again_up_to_maxretries_times() -> None:
    attempts: list[int] = []

    class Retrying(FlowSpec):
        @step(maxretries=3, backoff=0.001)
        def flaky(data):
            attempts.append(data)
            if len(attempts) < 4:
                raise ConnectionError(f"attempt {len(attempts)}")
            return "at last"

        @step(maxretries=1)
        def hopeless(data):
            raise ConnectionError("no")

    flow = Retrying("r", 1)
    with pytest.raises(WorkflowFailedError, match="Step hopeless failed: no"):
        flow.run()
    assert flow.get_result(flow.flaky) == "at last"
    assert [one.nodes[0].attempts for one in flow.graph.steps] == [4, 2]


def test_what_runs_too_long_in_a_thread_is_no_longer_heard() -> None:
    release = threading.Event()

    class Slow(FlowSpec):
        @step(maxexectime=0.05)
        def slow():
            release.wait()

        @needs()
        @step
        def other():
            return "has a thread all the same"

    flow = Slow("s", conf=Configuration(thread_count=1))
    try:
        with pytest.raises(WorkflowFailedError, match=r"Step slow failed: it ran for longer than 0.05 s"):
            flow.run()
        assert flow.get_result(flow.other) == "has a thread all the same"
    finally:
        release.set()


def test_what_runs_too_long_in_a_process_is_ended_and_tried_again(tmp_path: Path) -> None:
    class Slow(FlowSpec):
        @step(runs_in="process", maxexectime=1, maxretries=1)
        def slow(self, folder):
            with (Path(folder) / "pids").open("a") as file:
                file.write(f"{os.getpid()}\n")
            if len((Path(folder) / "pids").read_text().split()) == 1:
                signal.pause()
            return os.getpid()

    # The only process: the second attempt needs it.
    flow = Slow("s", str(tmp_path), Configuration(process_count=1))
    flow.run()
    first, second = map(int, (tmp_path / "pids").read_text().split())
    assert flow.get_result(flow.slow) == second != first
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_more_steps_in_processes_than_there_are_processes() -> None:
    class Many(FlowSpec):
        @foreach()
        @step
        def numbers():
            return [1, 2, 3]

        @needs(predecessors=[numbers])
        @step(runs_in="process")
        def square(number):
            return number * number, os.getpid()

    flow = Many("m", conf=Configuration(process_count=1))
    flow.run()
    squares, processes = zip(*flow.get_result(flow.square), strict=True)
    assert squares == (1, 4, 9) and len(set(processes)) == 1


def test_a_step_in_a_process_that_raises_or_cannot_be_sent() -> None:
    class Failing(FlowSpec):
        @step(runs_in="process")
        def raises(self, data):
            raise KeyError(self.name)

        @needs()
        @step(runs_in="process")
        def unsendable(lock):
            return lock

    with pytest.raises(WorkflowFailedError, match="Step raises failed: KeyError: 'f'") as caught:
        Failing("f", 1).run()
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(WorkflowFailedError, match="cannot be sent to a worker process"):
        Failing("f", threading.Lock()).run()


def test_an_async_step_is_cancelled_when_it_runs_too_long() -> None:
    cancelled = threading.Event()

    class Slow(FlowSpec):
        @step(maxexectime=0.05)
        async def slow():
            try:
                await asyncio.Event().wait()
            finally:
                cancelled.set()

    with pytest.raises(WorkflowFailedError, match=r"longer than 0\.05 s"):
        Slow("s").run()
    assert cancelled.wait(30)


def test_steps_in_threads_run_beside_each_other() -> None:
    """Each waits for all the others; the second time too, when the threads are there already."""
    barrier = threading.Barrier(4)

    class Meeting(FlowSpec):
        @foreach()
        @step
        def people():
            return [1, 2, 3, 4]

        @needs(predecessors=[people])
        @step
        def arrive(number):
            barrier.wait(60)
            return number

        @foreach()
        @join()
        @needs(predecessors=[arrive])
        @step
        def together(numbers):
            return numbers

        @needs(predecessors=[together])
        @step
        def leave(number):
            barrier.wait(60)
            return number

    flow = Meeting("m", conf=Configuration(thread_count=4))
    flow.run()
    assert flow.get_result(flow.leave) == [1, 2, 3, 4]


def test_async_steps_run_beside_each_other() -> None:
    meeting: list[asyncio.Event] = []

    class Meeting(FlowSpec):
        @foreach()
        @step
        async def people():
            meeting.append(asyncio.Event())
            return list(range(40))

        @needs(predecessors=[people])
        @step
        async def person(number):
            if number == 39:
                meeting[0].set()
            await meeting[0].wait()
            return number

    flow = Meeting("m", conf=Configuration(thread_count=1))
    flow.run()
    assert flow.get_result(flow.person) == list(range(40))


def test_maxwaittime_counts_from_when_a_step_is_ready() -> None:
    """The second waits behind the first, which goes on only when the second was given up. The third was submitted as
    early, and is ready only after both."""
    given_up = threading.Event()

    class Waiting(FlowSpec):
        @step(priority=1)
        def first():
            assert given_up.wait(60)

        @needs()
        @step(maxwaittime=0.05)
        def second():
            raise AssertionError

        @needs(predecessors=[first])
        @step(maxwaittime=30)
        def third(data):
            return "in time"

    def watch(graph: Any) -> None:
        if "second" in graph.delta.statuses and graph.statuses["second"].state == "FAILED":
            given_up.set()

    flow = Waiting("w", conf=Configuration(thread_count=1))
    with pytest.raises(WorkflowFailedError, match=r"Step second failed: no executor took it within 0.05 s"):
        flow.run(watchers=[watch])
    assert flow.get_result(flow.third) == "in time"


def test_priority() -> None:
    order: list[str] = []

    class Prior(FlowSpec):
        @step
        def low():
            order.append("low")

        @needs()
        @step(priority=5)
        def high():
            order.append("high")

        @needs()
        @step(priority=1)
        def middle():
            order.append("middle")

    Prior("p", conf=Configuration(thread_count=1)).run()
    assert order == ["high", "middle", "low"]


def test_cancel() -> None:
    begun, stopped, release = threading.Event(), threading.Event(), threading.Event()

    class Long(FlowSpec):
        @step
        async def waiting():
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                stopped.set()

        @needs()
        @step
        def blocking():
            release.wait()

        @needs(predecessors=[waiting])
        @step
        def after(data):
            raise AssertionError

    flow = Long("l")
    caught: list[BaseException] = []

    def run() -> None:
        try:
            flow.run()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert begun.wait(30)
    with pytest.raises(WorkflowError, match="is running"):
        flow.run()
    flow.cancel()
    thread.join(30)
    release.set()
    assert isinstance(caught[0], WorkflowCancelledError) and isinstance(caught[0], RuntimeError)
    assert stopped.wait(30)
    assert {str(one.state) for one in flow.graph.steps} == {"CANCELLED"}
    assert flow.graph.step_named("waiting").nodes[0].cancel
    flow.cancel()


def test_fail_fast() -> None:
    begun = threading.Event()

    class Failing(FlowSpec):
        @step
        async def waiting():
            begun.set()
            await asyncio.Event().wait()

        @needs()
        @step
        def bad():
            assert begun.wait(30)
            raise ValueError("boom")

    flow = Failing("f", conf=Configuration(fail_fast=True))
    with pytest.raises(WorkflowFailedError, match=r"^Flow failed: Step bad failed: boom$"):
        flow.run()
    assert flow.graph.step_named("waiting").state == "CANCELLED"


def test_a_flow_runs_within_a_step() -> None:
    class Inner(FlowSpec):
        @step
        def double(data):
            return data * 2

    class Outer(FlowSpec):
        @foreach()
        @step
        def items():
            return [1, 2, 3]

        @needs(predecessors=[items])
        @step
        def inner(item):
            flow = Inner("inner", item)
            flow.run()
            return flow.get_result(flow.double)

    flow = Outer("outer")
    flow.run()
    assert flow.get_result(flow.inner) == [2, 4, 6]


# -- served flows as steps -------------------------------------------------------------------------------------------


class Doubler(AtomicFlow):
    default_config = {"name": "Doubler", "description": "Doubles."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        if input_message.data["number"] < 0:
            raise ValueError("negative")
        return {"number": 2 * input_message.data["number"]}


def test_steps_that_are_flows_of_others(users: Callable[..., list[Client]]) -> None:
    alice, bob = users(2)
    for cl in (alice, bob):
        run_dispatch_worker_thread(cl)
        run_get_instance_worker_thread(cl)
        serve_flow(cl, "tests.acceptance.test_flow_spec_policies.Doubler", "doubler")

    class Asking(FlowSpec):
        @foreach()
        @step
        def numbers(data):
            return [{"number": number} for number in data]

        @remote(flow_endpoint="doubler", user_id=alice.user_id, timeout=60)
        @needs(predecessors=[numbers])
        @step
        def at_alice(): ...

        @join()
        @needs(predecessors=[at_alice])
        @step
        def total(replies):
            return sum(reply["number"] for reply in replies)

        @remote(flow_endpoint="doubler", timeout=60)
        @needs(predecessors=[total, numbers])
        @step
        def at_home(total, first):
            return {"number": total + first["number"]}

    flow = Asking("asking", [1, 2, 3], client=bob)
    flow.run()
    assert flow.get_result(flow.at_alice) == [{"number": 2}, {"number": 4}, {"number": 6}]
    assert flow.get_result(flow.at_home) == [{"number": 26}, {"number": 28}, {"number": 30}]
    (first, *_) = flow.graph.step_named("at_alice").nodes
    assert first.run_id is not None
    assert not [key for key in alice.read_keys("flows:doubler:mounts:") if first.run_id in key], "it was given back"

    with pytest.raises(WorkflowFailedError, match=r"Step at_alice failed: .* raised ValueError: negative") as caught:
        Asking("asking", [-1], client=bob).run()
    assert type(caught.value.__cause__).__name__ == "RemoteFlowError"
    with pytest.raises(WorkflowError, match=r"Step at_alice asks doubler of a user, and the flow has no client"):
        Asking("asking", [1]).run()


class Waiter(AtomicFlow):
    default_config = {"name": "Waiter", "description": "Never answers."}

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}


def test_a_flow_that_does_not_answer_and_an_owner_who_is_gone(users: Callable[..., list[Client]]) -> None:
    alice, bob = users(2)
    workers = [run_dispatch_worker_thread(alice), run_get_instance_worker_thread(alice)]
    serve_flow(alice, "tests.acceptance.test_flow_spec_policies.Waiter", "waiter")
    serve_flow(alice, "tests.acceptance.test_flow_spec_policies.Doubler", "doubler")

    class Asking(FlowSpec):
        @remote(flow_endpoint="waiter", user_id=alice.user_id, timeout=0.2)
        @step
        def waiting(): ...

    with pytest.raises(
        WorkflowFailedError, match=r"Step waiting failed: No reply from waiter of user .* within 0\.2 s"
    ):
        Asking("asking", {}, client=bob).run()

    class Closing(FlowSpec):
        @remote(flow_endpoint="doubler", user_id=alice.user_id, timeout=60)
        @step
        def double(): ...

        @step
        def close(reply):
            for worker in workers:
                worker.stop()
            alice.close()
            return reply

    flow = Closing("closing", {"number": 1}, client=bob)
    flow.run()
    assert flow.get_result(flow.close) == {"number": 2}


# -- who watches -----------------------------------------------------------------------------------------------------


class Small(FlowSpec):
    @foreach()
    @step
    def items():
        return [1, 2, 3]

    @needs(predecessors=[items])
    @step
    def each(item):
        return item


def test_progress_on_a_terminal() -> None:
    flow = Small("s")
    screen = io.StringIO()
    with Progress(flow.graph, Console(file=screen, force_terminal=True, width=100)) as bars:
        flow.run(watchers=[bars])
    shown = screen.getvalue()
    assert "items" in shown and "each" in shown and "3/3" in shown and "SUCCESS" in shown


def test_a_run_is_watched_through_the_store(users: Callable[..., list[Client]]) -> None:
    (cl,) = users(1)
    ended = threading.Event()
    watch = watch_published(cl, "run-1", lambda graph: ended.set() if graph.state == "SUCCESS" else None)
    flow = Small("s")
    for _ in range(2):
        with Published(cl, "run-1") as published:
            flow.run(watchers=[published])
    assert ended.wait(30)
    watch.close()
    graph = read_published(cl, "run-1")
    assert graph.state == "SUCCESS"
    assert {name: str(graph.statuses[name].state) for name in graph.processes()} == dict.fromkeys(
        ["items", "each", "each[0]", "each[1]", "each[2]"], "SUCCESS"
    )
    with pytest.raises(WorkflowError, match="No workflow is published as run-2"):
        read_published(cl, "run-2")


def test_a_watcher_that_fails_is_told_no_more(caplog: pytest.LogCaptureFixture) -> None:
    told = []

    def watch(graph: Any) -> None:
        told.append(graph)
        raise OSError("no screen")

    flow = Small("s")
    flow.run(watchers=[watch])
    assert flow.get_result(flow.each) == [1, 2, 3] and len(told) == 1
    assert "A watcher of Small('s') failed" in caplog.text
