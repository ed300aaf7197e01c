"""Properties of which managed flows begin and which fail, against a plain model."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflows.errors import FlowError
from coflows.execution.dependencies import Change, Dependencies, DependencyType

REQUIRED, OPTIONAL = DependencyType.REQUIRED, DependencyType.OPTIONAL


def built(edges: list[tuple[str, str, DependencyType]], retries: int = 0) -> Dependencies:
    made = Dependencies()
    for flow in dict.fromkeys(flow for edge in edges for flow in edge[:2]):
        made.add(flow, retries)
    for edge in edges:
        made.connect(*edge)
    return made


def test_a_chain_runs_in_order() -> None:
    flows = built([("a", "b", REQUIRED), ("b", "c:[1]", REQUIRED)])
    assert flows.refresh() == Change(ready=["a"])
    flows.begin("a")
    assert flows.succeed("a") == Change(ready=["b"])
    flows.begin("b")
    assert flows.succeed("b") == Change(ready=["c:[1]"]), "ids may be what they like"


def test_a_required_failure_reaches_all_descendants_and_names_the_nearest() -> None:
    flows = built([("a", "b", REQUIRED), ("b", "c", REQUIRED), ("c", "d", OPTIONAL), ("d", "e", REQUIRED)])
    flows.refresh()
    flows.begin("a")
    change = flows.fail("a", "boom")
    assert change == Change(ready=["d"], failed=[("b", "a"), ("c", "b")])


def test_a_flow_that_fails_before_it_begins_fails_others_too() -> None:
    flows = built([("a", "b", REQUIRED), ("b", "c", REQUIRED)])
    assert flows.fail("b", "no").failed == [("c", "b")]
    assert flows.may_begin("a") and not flows.may_begin("c")
    flows.add("late")
    flows.connect("c", "late", REQUIRED)
    assert flows.refresh().failed == [("late", "c")], "also those that come later"


def test_retries_are_counted_over_changes_of_the_graph() -> None:
    flows = built([("a", "b", REQUIRED)], retries=2)
    for left in (1, 0):
        flows.refresh()
        flows.begin("a")
        flows.add(f"late{left}")
        assert flows.fail("a", "boom", retry=True).ready.count("a") == 1
        assert flows.may_begin("a")
    flows.begin("a")
    assert flows.fail("a", "boom", retry=True).failed == [("b", "a")]


def test_what_makes_no_graph_is_refused() -> None:
    flows = built([("a", "b", REQUIRED), ("b", "c", OPTIONAL)])
    with pytest.raises(FlowError, match=r"^Adding dependency would create a cycle It is a -> b -> c -> a\.$"):
        flows.connect("c", "a", REQUIRED)
    with pytest.raises(FlowError, match="would create a cycle"):
        flows.connect("a", "a", REQUIRED)
    with pytest.raises(FlowError, match="flows not found: nobody"):
        flows.connect("nobody", "a", REQUIRED)
    assert not flows.in_cycle("a")
    flows.refresh()
    flows.begin("a")
    flows.add("d")
    with pytest.raises(FlowError, match="Flow a has begun already"):
        flows.connect("d", "a", REQUIRED)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_flow_ends_as_the_model_says(count: int, dice: random.Random) -> None:
    """Flows, edges and outcomes at random, some of them added while others run."""
    flows = Dependencies()
    names = [f"flow {n}" for n in range(count)]
    needs: dict[str, dict[str, DependencyType]] = {name: {} for name in names}
    goes_well = {name: dice.random() < 0.7 for name in names}
    added: list[str] = []
    running: set[str] = set()
    over: dict[str, bool] = {}

    def take(change: Change) -> None:
        for flow, _ in change.failed:
            assert flow not in over
            over[flow] = False
        assert all(needs[flow][culprit] is REQUIRED and not over[culprit] for flow, culprit in change.failed)

    def add() -> None:
        name = names[len(added)]
        flows.add(name)
        for parent in dice.sample(added, dice.randint(0, min(3, len(added)))):
            kind = dice.choice(list(DependencyType))
            flows.connect(parent, name, kind)
            needs[name][parent] = kind
        added.append(name)

    while len(over) < count:
        if len(added) < count and dice.random() < 0.5:
            add()
        take(flows.refresh())
        ready = [name for name in added if flows.may_begin(name)]
        assert ready == [
            name
            for name in added
            if name not in over and name not in running and all(parent in over for parent in needs[name])
        ], "ready is who has all that it needs"
        if ready and dice.random() < 0.5:
            flows.begin(ready[0])
            running.add(ready[0])
        elif running:
            name = dice.choice(sorted(running))
            running.discard(name)
            over[name] = goes_well[name]
            take(flows.succeed(name) if goes_well[name] else flows.fail(name, "boom"))
        elif len(added) < count:
            add()
    for name in names:
        doomed = any(kind is REQUIRED and not over[parent] for parent, kind in needs[name].items())
        assert over[name] == (goes_well[name] and not doomed)
