"""The process graph by example: what is refused, how it grows, what its timers do."""

from __future__ import annotations

import pytest

from coflows.errors import CoflowsError, SerializationError, WorkflowInvalidError
from coflows.workflow.graph import Graph, Input, inputs_of, step
from coflows.workflow.graph.commands import ClearTimer, End, SetTimer, Start, Stop, Timer, TimerKind
from coflows.workflow.graph.events import (
    Cancelled,
    ChildAdded,
    Event,
    Failed,
    Lost,
    Started,
    Submitted,
    Succeeded,
    TimerDue,
)
from coflows.workflow.graph.process import Need, Policy, ProcessSpec
from coflows.workflow.graph.records import load
from tests.unit.workflow_world import World


def spec(name: str, *needs: str, **rest: object) -> ProcessSpec:
    return ProcessSpec(name, tuple(Need(one) for one in needs), **rest)  # type: ignore[arg-type]


def told(*events: Event) -> tuple[Graph, list[object]]:
    graph, log = Graph(), []
    for event in events:
        graph, commands = step(graph, event)
        log += commands
    return graph, log


def chain(name: str, attempt: int = 1, at: float = 0.0) -> tuple[Event, Event]:
    return Started(name, attempt, at), Succeeded(name, attempt, at)


@pytest.mark.parametrize(
    ("specs", "text"),
    [
        ([spec("")], "A step has no name"),
        ([spec("a[0]")], r"'a\[0\]' is no name"),
        ([spec("a"), spec("a")], "Two steps are named a"),
        ([spec("a", "b")], "Step a depends on b, which is not in the graph"),
        ([spec("a", "a")], "Step a depends on itself"),
        ([spec("a"), spec("b", "a", "a")], "Step b depends on a twice"),
        ([spec("a", "c"), spec("b", "a"), spec("c", "b")], "in a cycle: a -> b -> c -> a"),
        ([spec("x"), spec("a", "x", "b"), spec("b", "a")], "in a cycle: a -> b -> a"),
        ([spec("a"), spec("b"), spec("c"), spec("d", "a", "b", "c")], "Step d has 3 inputs; at most 2 are allowed"),
    ],
)
def test_what_makes_no_graph_is_refused_as_a_whole(specs: list[ProcessSpec], text: str) -> None:
    empty = Graph()
    with pytest.raises(WorkflowInvalidError, match=text) as caught:
        step(empty, Submitted(tuple(specs), max_needs=2))
    assert isinstance(caught.value, CoflowsError) and empty == Graph()


def test_long_chains_are_no_recursion() -> None:
    count = 5_000
    specs = [spec("s0"), *(spec(f"s{number}", f"s{number - 1}") for number in range(1, count))]
    with pytest.raises(WorkflowInvalidError, match="in a cycle"):
        step(Graph(), Submitted((spec("s0", f"s{count - 1}"), *specs[1:])))
    graph, log = told(Submitted(tuple(specs)), Started("s0", 1), Failed("s0", 1, "boom"))
    assert log[-1] == End(graph.state) and graph.state == "FAILED"
    assert {str(status.state) for status in graph.statuses.values()} == {"FAILED", "UPSTREAM_FAILED"}
    assert graph.head.blame == "s0" and graph.statuses[f"s{count - 1}"].blame == "s0"


def test_map_reduce() -> None:
    """The seed's: the map adds five between itself and the reduce, which is left with those alone."""
    graph, _ = told(Submitted((spec("map"), spec("reduce", "map"))), Started("map", 1))
    for number in range(5):
        graph, commands = step(graph, ChildAdded("map", "reduce", spec(f"gen_{number}"), insert=number == 0))
        assert commands == ()
        assert len(graph.delta.statuses) == 3, "a child costs the same, however many there are"
    assert [need.process for need in graph.parents("reduce")] == [f"gen_{number}" for number in range(5)]
    graph, commands = step(graph, Succeeded("map", 1))
    assert [command.process for command in commands if isinstance(command, Start)] == [f"gen_{n}" for n in range(5)]
    for number in (3, 1, 0, 4, 2):
        for event in chain(f"gen_{number}"):
            graph, commands = step(graph, event)
    assert commands == (Start("reduce", 1),)
    assert inputs_of(graph, "reduce") == [Input(f"gen_{number}") for number in range(5)]


def test_a_child_without_a_child_and_one_of_a_parent_that_is_over() -> None:
    graph, _ = told(Submitted((spec("a"), spec("b"))), *chain("a"))
    graph, commands = step(graph, ChildAdded("a", None, spec("c")))
    assert commands == (Start("c", 1),)
    again, commands = step(graph, ChildAdded("a", None, spec("c")))
    assert again == graph and commands == (), "a step that runs again adds its children again"


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (ChildAdded("a", None, spec("b")), "there is a b already"),
        (ChildAdded("zz", None, spec("n")), "there is no zz"),
        (ChildAdded("a", "zz", spec("n")), "there is no zz"),
        (ChildAdded("a", "done", spec("n")), "done was given out already"),
        (ChildAdded("bad", None, spec("n")), "bad is FAILED"),
        (ChildAdded("b", "a2", spec("n")), "that makes a cycle: a2 -> b -> n -> a2"),
        (ChildAdded("a", "b", spec("n"), insert=True), "b does not depend on a. Without insert"),
        (ChildAdded("a", None, spec("n", "b")), "its needs come of where it is added"),
        (ChildAdded("a", None, spec("")), "has no name"),
    ],
)
def test_children_that_are_refused(event: ChildAdded, text: str) -> None:
    specs = (spec("a"), spec("a2", "a"), spec("b", "a2"), spec("done"), spec("bad"))
    graph, _ = told(Submitted(specs), Started("a", 1), *chain("done"), Started("bad", 1), Failed("bad", 1, "boom"))
    before = dict(graph.statuses)
    with pytest.raises(WorkflowInvalidError, match=text.replace(".", r"\.")):
        step(graph, event)
    assert dict(graph.statuses) == before


def test_nothing_is_added_to_a_graph_that_is_over() -> None:
    graph, _ = told(Submitted((spec("a"),)), *chain("a"))
    with pytest.raises(WorkflowInvalidError, match="the graph is over"):
        step(graph, ChildAdded("a", None, spec("b")))
    with pytest.raises(WorkflowInvalidError, match="was submitted already"):
        step(graph, Submitted((spec("a"),)))


def test_timers_of_an_attempt() -> None:
    policy = Policy(maxretries=1, maxexectime=10, maxwaittime=5, backoff=2)
    waits, runs = Timer("a", 1, TimerKind.WAIT), Timer("a", 1, TimerKind.EXECUTION)
    graph, log = told(Submitted((spec("a", policy=policy),), at=100.0))
    assert log == [Start("a", 1), SetTimer(waits, 105.0)]
    graph, commands = step(graph, Started("a", 1, 101.0))
    assert commands == (ClearTimer(waits), SetTimer(runs, 111.0))
    graph, commands = step(graph, TimerDue(runs, 111.0))
    retry = Timer("a", 1, TimerKind.RETRY)
    assert commands == (Stop("a", 1), ClearTimer(runs), SetTimer(retry, 113.0))
    assert graph.statuses["a"].state == "WAITING"
    late, commands = step(graph, Succeeded("a", 1, 112.0))
    assert late == graph and commands == (), "it was stopped: what it gives is not heard"
    graph, commands = step(graph, TimerDue(retry, 113.0))
    assert commands == (ClearTimer(retry), Start("a", 2), SetTimer(Timer("a", 2, TimerKind.WAIT), 118.0))
    graph, commands = step(graph, TimerDue(Timer("a", 2, TimerKind.WAIT), 118.0))
    assert commands[0] == Stop("a", 2) and graph.state == "FAILED"
    assert graph.statuses["a"].reason == "no executor took it within 5 s (maxwaittime)"


def test_backoff_doubles_up_to_a_limit() -> None:
    policy = Policy(backoff=1, maxbackoff=10)
    assert [policy.delay(retry) for retry in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


def test_lost_executors_are_no_retries_and_end_some_time() -> None:
    graph, log = told(Submitted((spec("a"),)))
    for attempt in range(1, 7):
        graph, commands = step(graph, Lost("a", attempt))
        log += commands
    assert [command.attempt for command in log if isinstance(command, Start)] == [1, 2, 3, 4, 5, 6]
    assert graph.statuses["a"].reason == "6 executors were lost over it" and graph.state == "FAILED"


def test_cancelling_one_process() -> None:
    graph, _ = told(Submitted((spec("a"), spec("b", "a"), spec("c"))), Started("a", 1))
    graph, commands = step(graph, Cancelled("a"))
    assert commands == (Stop("a", 1),)
    assert [str(graph.statuses[name].state) for name in "abc"] == ["CANCELLED", "UPSTREAM_FAILED", "WAITING"]
    graph, commands = step(graph, Succeeded("c", 1))
    assert commands == (End(graph.state),) and graph.state == "FAILED" and graph.head.blame == "a"


def test_priority_and_executor_type_are_told() -> None:
    _, log = told(Submitted((spec("a", policy=Policy(priority=7), executortype="hpc"),)))
    assert log == [Start("a", 1, "hpc", 7)]


def test_a_group_takes_items_and_gathers() -> None:
    group = ProcessSpec("g", (Need("a", each=True), Need("b", each=True), Need("c")), group=True, repetitions=2)
    specs = [spec("a", foreach=True), spec("b", foreach=True), spec("c"), group, spec("end", "g")]
    world = World(specs, items={"a": 2, "b": 3}).run()
    graph = world.graph
    assert graph.state == "SUCCESS" and graph.children("g") == [f"g[{index}]" for index in range(12)]
    got = [inputs_of(graph, child) for child in graph.children("g")]
    product = [[Input("a", one), Input("b", other), Input("c")] for one in range(2) for other in range(3)]
    assert got == product * 2
    assert len(graph.specs) == 5, "children have no record of what they are"


def test_records_that_are_malformed() -> None:
    for records in ({"s:a": [1, "NOWHERE"]}, {"h": []}, {"p:a": [1]}, {"n:a:x": ["b"]}):
        with pytest.raises(SerializationError):
            load(records)
