"""The local runner comes to the end that the engine comes to in a made-up world, with real threads."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflows.workflow.graph.commands import Timer, TimerKind
from coflows.workflow.graph.process import Need, Policy, ProcessSpec
from coflows.workflow.local.body import Body
from coflows.workflow.local.run import LocalRun
from coflows.workflow.local.timers import Timers
from tests.unit.test_workflow_properties import calmly, worlds
from tests.unit.workflow_world import World


def no_processes() -> Any:
    raise AssertionError("nothing runs in a process here")


def bodies_of(world: World, places: list[str], ran: Counter[str]) -> dict[str, Body]:
    """Steps that do what the world has fixed for them; each tells the arguments that it got."""

    def body(spec: ProcessSpec, place: str) -> Body:
        def run(*inputs: Any) -> Any:
            name = spec.name
            ran[name] += 1
            outcomes = world.outcomes.get(name, [])
            outcome = outcomes[ran[name] - 1] if ran[name] <= len(outcomes) else "succeeded"
            if outcome == "failed":
                raise ValueError("boom")
            return None if outcome == "no list" else [(name, item, inputs) for item in range(world.items.get(name, 2))]

        async def run_async(*inputs: Any) -> Any:
            await asyncio.sleep(0)
            return run(*inputs)

        condition = (lambda: spec.name not in world.skipped) if spec.conditional else None
        return Body(run_async if place == "async" else run, place, condition=condition)  # type: ignore[arg-type]

    return {spec.name: body(spec, places[number % len(places)]) for number, spec in enumerate(world.specs)}


@settings(calmly, max_examples=40)
@given(worlds(), st.integers(1, 4), st.lists(st.sampled_from(["thread", "async"]), min_size=1, max_size=3))
def test_any_graph_comes_to_the_end_that_it_should(world: World, threads: int, places: list[str]) -> None:
    # Of a group's children, who fails is by name; here by count. So only what is no group may fail.
    groups = {spec.name for spec in world.specs if spec.group}
    world.adds = {}
    world.outcomes = {
        name: [one for one in outcomes if one in ("failed", "no list", "succeeded")]
        for name, outcomes in world.outcomes.items()
        if name not in groups and "[" not in name
    }
    world.items = {name: count for name, count in world.items.items() if "[" not in name}
    for group in groups:
        for child in range(1000):
            world.items[f"{group}[{child}]"] = world.items.get(group, 2)
    world.specs = [
        spec._replace(policy=spec.policy._replace(maxexectime=-1, maxwaittime=-1, backoff=spec.policy.backoff / 1000))
        for spec in world.specs
    ]
    expected = world.run()
    ran: Counter[str] = Counter()
    seen: list[str] = []
    run = LocalRun(
        bodies_of(world, places, ran),
        threads=threads,
        processes=no_processes,
        process_count=1,
        watch=lambda graph: seen.extend(graph.delta.statuses),
    )
    graph = run.run(world.specs, 1000)
    assert {name: str(status.state) for name, status in graph.statuses.items()} == {
        name: state for name, state in expected.states().items() if name != "the graph"
    }
    assert graph.state == expected.graph.state
    assert set(seen) == set(graph.statuses)
    begun = Counter(name.partition("[")[0] for name, _ in expected.given_out)
    assert +ran == begun, "each attempt runs once"


def test_arguments_are_what_the_parents_gave() -> None:
    specs = [
        ProcessSpec("a", foreach=True),
        ProcessSpec("b"),
        ProcessSpec("pair", (Need("b"), Need("a", each=True)), group=True),
        ProcessSpec("all", (Need("pair"), Need("b"))),
    ]
    bodies = {
        "a": Body(lambda: [1, 2, 3]),
        "b": Body(lambda: "b"),
        "pair": Body(lambda b, a: f"{b}{a}"),
        "all": Body(lambda pairs, b: (pairs, b)),
    }
    run = LocalRun(bodies, threads=2, processes=no_processes, process_count=1)
    run.run(specs, 10)
    assert run.outputs.get("all") == (["b1", "b2", "b3"], "b")


def test_many_threads_and_one_after_the_other() -> None:
    """A step of each wave counts; nothing is lost, nothing runs twice."""
    lock, ran = threading.Lock(), Counter[str]()

    def count(name: str) -> Any:
        def run(*inputs: Any) -> int:
            with lock:
                ran[name] += 1
            return sum(inputs) + 1 if inputs else 1

        return run

    rows, columns = 30, 20
    specs = [
        ProcessSpec(
            f"{row}.{column}",
            tuple(Need(f"{row - 1}.{c}") for c in (column, (column + 1) % columns)) if row else (),
            Policy(priority=column % 3),
        )
        for row in range(rows)
        for column in range(columns)
    ]
    run = LocalRun(
        {spec.name: Body(count(spec.name)) for spec in specs}, threads=8, processes=no_processes, process_count=1
    )
    assert run.run(specs, 10).state == "SUCCESS"
    assert ran == Counter(spec.name for spec in specs)
    assert run.outputs.get(f"{rows - 1}.0") == 2**rows - 1


@pytest.mark.parametrize("place", ["thread", "async"])
@pytest.mark.parametrize("raised", [SystemExit(3), KeyboardInterrupt()])
def test_system_exit_ends_the_step_alone(raised: BaseException, place: Any) -> None:
    def leave() -> None:
        raise raised

    async def leave_async() -> None:
        leave()

    async def other(_given: object) -> int:
        return 1

    bodies = {"a": Body(leave_async if place == "async" else leave, place), "b": Body(other, "async")}
    run = LocalRun(bodies, threads=1, processes=no_processes, process_count=1)
    graph = run.run([ProcessSpec("a"), ProcessSpec("b", (Need("a", required=False),))], 10)
    assert str(graph.statuses["a"].state) == "FAILED" and str(graph.statuses["b"].state) == "SUCCESS"
    assert run.errors["a"] is raised


def test_an_interrupt_of_the_waiting_cancels_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    run = LocalRun({"a": Body(release.wait)}, threads=1, processes=no_processes, process_count=1)

    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run.run([ProcessSpec("a")], 10)
    release.set()
    assert run.graph.state == "CANCELLED"


@calmly
@given(st.lists(st.tuples(st.integers(0, 20), st.one_of(st.none(), st.integers(0, 100)))))
def test_timers(actions: list[tuple[int, int | None]]) -> None:
    timers, model = Timers(), dict[Timer, float]()
    for number, due in actions:
        timer = Timer(f"p{number}", 1, TimerKind.WAIT)
        if due is None:
            timers.clear(timer)
            model.pop(timer, None)
        else:
            timers.set(timer, due)
            model[timer] = due
        assert len(timers) == len(model)
        first = timers.earliest()
        assert (first is None) == (not model)
        if first is not None:
            assert model[first[0]] == first[1] == min(model.values())
