"""A FlowSpec on the executors of a colony: the same results as here, and it outlives the program that runs it."""

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
from coflows.errors import WorkflowCancelledError, WorkflowError, WorkflowFailedError
from coflows.identity.home import Home
from coflows.serving import serve_flow
from coflows.workflow import (
    Colonies,
    Configuration,
    Executor,
    FlowSpec,
    Published,
    foreach,
    join,
    needs,
    optional,
    read_published,
    remote,
    repeat,
    step,
)
from coflows.workflow.graph.states import ProcessState
from tests.acceptance.test_flow_spec import Derived, Lists, MyFlow, Overriding, Repeated
from tests.colony_flow import COLONY, KIND, RUN_ID, Nightly
from tests.waiting import until
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

Users = Callable[..., list[Client]]
ROOT = Path(__file__).parents[2]
TIMEOUT = 60


@pytest.fixture
def cl(users: Users) -> Iterator[Client]:
    """The owner of a colony, who runs an executor there."""
    (cl,) = users(1)
    Colonies(cl).add_colony(COLONY)
    with Executor(cl, COLONY, KIND, concurrency=4):
        yield cl


class Nested(FlowSpec):
    @foreach()
    @step
    def books(self, data):
        return ["ab", "", "cde"]

    @foreach()
    @needs(predecessors=[books])
    @step
    def letters(self, book):
        return list(book)

    @needs(predecessors=[letters])
    @step
    async def upper(self, letter):
        return letter.upper()

    @repeat(repetitions=2)
    @needs(predecessors=[upper])
    @step
    def sample(self, letter):
        return letter * 2

    @needs(predecessors=[sample, books])
    @step
    def both(self, samples, book):
        return [len(samples), book]


class Choosing(FlowSpec):
    @optional(condition=lambda: False)
    @step
    def not_this(self, data):
        raise AssertionError

    @optional(condition=lambda step: step.get_id() == "this")
    @step
    def this(self, data):
        return data

    @optional(condition=lambda: False)
    @foreach()
    @step
    def no_items(self):
        return [1, 2]

    @step
    def bad(self):
        raise ValueError("boom")

    @needs(predecessors=[not_this, this, no_items], optional=[bad])
    @step
    def after(self, *inputs):
        return list(inputs)


FLOWS = [
    lambda: MyFlow("my-flow", 5),
    lambda: Derived("d", 0),
    lambda: Overriding("o", 0),
    lambda: Lists("lists", 3),
    lambda: Lists("lists", 1),
    lambda: Lists("lists", 0),
    lambda: Repeated("r", 7),
    lambda: Nested("nested", 0),
    lambda: Choosing("choosing", 6),
]


def shown(flow: FlowSpec) -> dict[str, Any]:
    """What a flow has to say of a run."""
    steps = flow.graph.to_dict()
    results = {step.name: flow.get_result(step.name) for step in flow.graph.steps}
    return {**steps, "results": results, "mermaid": flow.graph.to_mermaid()}


def test_it_ends_as_it_does_here(cl: Client) -> None:
    for make in FLOWS:
        here, there = make(), make()
        here.run()
        there.run(cl=cl, colonyname=COLONY, executortype=KIND)
        assert shown(there) == shown(here)
    with Executor(cl, COLONY, "processes", runs_in="process"):
        there = Lists("lists", 2)
        there.run(cl=cl, colonyname=COLONY, executortype="processes")
        assert there.get_result("d") == ["0x0x", "0y0y", "1x1x", "1y1y"]
    assert Colonies(cl).get_processgraphs(COLONY) == [], "nothing is left behind"


class Failing(FlowSpec):
    @foreach()
    @step
    def items(self, data):
        return [1, 0, 2]

    @needs(predecessors=[items])
    @step
    def inverse(self, item):
        return 1 / item

    @join()
    @needs(predecessors=[inverse])
    @step
    def total(self, all):
        raise AssertionError


class NoList(FlowSpec):
    @foreach()
    @step
    def items(self, data):
        return 7

    @needs(predecessors=[items])
    @step
    def each(self, item):
        return item


class Undecided(FlowSpec):
    @optional(condition=lambda: 1 / 0)
    @step
    def maybe(self, data):
        return data


@pytest.mark.parametrize(
    ("flow", "conf", "text"),
    [
        (Failing, Configuration(), "Step inverse failed: division by zero (node inverse_1)"),
        (Failing, Configuration(fail_fast=True), "Step inverse failed: division by zero (node inverse_1)"),
        (Failing, Configuration(max_step_inputs=2), "Step inverse failed: it has 3 inputs; at most 2 are allowed"),
        (NoList, Configuration(), "Step items failed: a foreach step returns a list, and it returned int"),
        (Undecided, Configuration(), "Step maybe failed: division by zero"),
    ],
)
def test_a_failure_names_the_step(cl: Client, flow: type[FlowSpec], conf: Configuration, text: str) -> None:
    for where in ({}, {"cl": cl, "colonyname": COLONY, "executortype": KIND}):
        one = flow("failing", 0, conf)
        with pytest.raises(WorkflowFailedError) as caught:
            one.run(**where)
        assert str(caught.value).startswith(f"Flow failed: {text}")
        assert ("division" in text) <= (caught.value.__cause__ is not None)
        assert one.runner.fail and one.runner.fail_reason.startswith(text)


def test_it_is_watched_and_cancelled(cl: Client) -> None:
    begun, gate = threading.Event(), threading.Event()

    class Waiting(FlowSpec):
        @foreach()
        @step
        def items(self, data):
            return [1, 2, 3]

        @needs(predecessors=[items])
        @step(executortype="gate")
        def held(self, item):
            raise AssertionError

        @needs(predecessors=[held])
        @step
        def after(self, item):
            return item

    def held(item: int) -> int:
        begun.set()
        gate.wait(TIMEOUT)
        return item

    flow = Waiting("waiting", 0)
    with Executor(cl, COLONY, "gate") as executor, Published(cl, "watched") as published:
        executor.register(held, "Waiting.held")
        ends: list[BaseException] = []

        def run() -> None:
            try:
                flow.run(cl=cl, colonyname=COLONY, executortype=KIND, watchers=[published])
            except BaseException as error:
                ends.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        assert begun.wait(TIMEOUT)
        state = lambda: read_published(cl, "watched").statuses["items"].state  # noqa: E731
        until(cl.store, "workflows:", lambda: state() is ProcessState.SUCCESS, "watched through the store")
        with pytest.raises(WorkflowError, match="is running"):
            flow.run()
        flow.cancel()
        thread.join(TIMEOUT)
        gate.set()
    assert [type(error) for error in ends] == [WorkflowCancelledError]
    assert {str(node.state) for node in flow.graph.step_named("after").nodes} <= {"CANCELLED"}
    assert str(flow.graph.step_named("held").state) == "CANCELLED"
    with pytest.raises(WorkflowError, match="cl="):
        flow.run(colonyname=COLONY)
    with pytest.raises(WorkflowError, match="colonyname="):
        flow.run(cl=cl)


def test_who_interrupts_the_waiting_cancels_the_run(cl: Client) -> None:
    def interrupt(graph: object) -> None:
        raise KeyboardInterrupt

    options = {"cl": cl, "colonyname": COLONY, "executortype": "nobody"}
    with pytest.raises(KeyboardInterrupt):
        MyFlow("my-flow", 5).run(**options, watchers=[interrupt])
    client = Colonies(cl)
    (made,) = client.get_processgraphs(COLONY)
    assert client.wait(made, TIMEOUT).state == "CANCELLED"
    with pytest.raises(KeyboardInterrupt):
        MyFlow("my-flow", 5).run(**options, watchers=[interrupt], run_id="goes on")
    assert [str(one.state) for one in client.get_processgraphs(COLONY)] == ["WAITING", "CANCELLED"]


def test_a_served_flow_is_asked_by_the_executor(users: Users) -> None:
    owner, other = users(2)
    Colonies(owner).add_colony(COLONY)
    run_dispatch_worker_thread(other)
    run_get_instance_worker_thread(other)
    serve_flow(other, "ReverseNumberFlowModule.ReverseNumberAtomicFlow", "reverse")

    class Palindromes(FlowSpec):
        @foreach()
        @step
        def numbers(self, data):
            return [{"id": number, "number": number} for number in data]

        @needs(predecessors=[numbers])
        @remote(flow_endpoint="reverse", user_id=other.user_id, timeout=TIMEOUT)
        @step
        def reverse(self, number):
            """The input is sent as it is."""

        @join()
        @needs(predecessors=[reverse])
        @step
        def found(self, replies):
            return [reply["output_number"] for reply in replies]

    with Executor(owner, COLONY, KIND, concurrency=2):
        flow = Palindromes("palindromes", [12, 131])
        flow.run(cl=owner, colonyname=COLONY, executortype=KIND)
    assert flow.get_result("found") == [21, 131]


def test_it_outlives_the_program_that_runs_it(home: Path, tmp_path: Path) -> None:
    Home(home).create_user("owner")
    folder = tmp_path / "effects"
    folder.mkdir()
    executor = ["workers.executor", "--user", "owner", "--colony", COLONY, "--type", KIND, "--concurrency", "2"]
    with ExitStack() as exit_stack, connect("owner") as owner:
        client = Colonies(owner, coordinate=False)
        client.add_colony(COLONY)

        def start(*words: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen([sys.executable, "-m", *words], env=os.environ, cwd=ROOT)
            exit_stack.callback(process.wait)
            exit_stack.callback(process.kill)
            return process

        victims = [start(*executor), start("tests.colony_flow", str(folder))]
        begun = lambda: len(list(folder.glob("begun *"))) >= 2  # noqa: E731
        until(owner.store, "records:", begun, "the run has begun")
        for process in victims:
            process.kill()
            process.wait()
        (folder / "go on").touch()
        start(*executor)
        (running,) = client.get_processgraphs(COLONY)
        flow = Nightly("nightly", str(folder))
        flow.run(cl=owner, colonyname=COLONY, executortype=KIND, run_id=RUN_ID)
        assert flow.get_result("total") == 60 and flow.get_result("work") == [0, 10, 20, 30]
        again = Nightly("nightly", "what is submitted then makes no difference")
        again.run(cl=owner, colonyname=COLONY, executortype=KIND, run_id=RUN_ID)
        assert again.get_result("total") == 60
        assert [one.processgraphid for one in client.get_processgraphs(COLONY)] == [running.processgraphid]
        with pytest.raises(WorkflowError, match="another flow's"):
            MyFlow("my-flow", 5).run(cl=owner, colonyname=COLONY, executortype=KIND, run_id=RUN_ID)
        assert client.remove(running.processgraphid)
        anew = Nightly("nightly", str(folder))
        made = anew.submit(owner, COLONY, KIND, run_id=RUN_ID)
        assert made != running.processgraphid and client.wait(made, TIMEOUT).state == "SUCCESS"
