"""What holds for every process graph, in whatever order things happen (hypothesis)."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coflows.workflow.graph.commands import End
from coflows.workflow.graph.events import Cancelled, Submitted
from coflows.workflow.graph.process import Need, Policy, ProcessSpec
from coflows.workflow.graph.states import GRAPH_ENDED, ProcessState
from coflows.workflow.graph.stepping import Graph, outstanding, step
from tests.unit.workflow_world import World

calmly = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
OUTCOMES = ["succeeded", "failed", "timed out", "lost", "hangs", "unwanted", "no list"]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Graphs of up to ten processes with everything that a process may have."""
    names = [f"p{number}" for number in range(draw(st.integers(0, 10)))]
    specs = []
    for number, name in enumerate(names):
        chosen = draw(st.lists(st.sampled_from(names[:number]), unique=True, max_size=4)) if number else []
        needs = tuple(Need(parent, draw(st.booleans()), draw(st.booleans())) for parent in chosen)
        limit = st.sampled_from([-1.0, 0.0, 5.0])
        policy = Policy(
            draw(st.integers(0, 3)), draw(limit), draw(limit), draw(st.integers(0, 2)), draw(st.sampled_from([0, 1.0]))
        )
        specs.append(
            ProcessSpec(
                name,
                needs,
                policy,
                group=draw(st.integers(0, 3)) == 0,
                repetitions=draw(st.integers(0, 2)),
                foreach=draw(st.booleans()),
                conditional=draw(st.integers(0, 3)) == 0,
            )
        )
    nodes = (
        st.sampled_from([f"{name}{index}" for name in names for index in ("", "[0]", "[1]")])
        if names
        else st.just("nobody")
    )
    outcomes = draw(st.dictionaries(nodes, st.lists(st.sampled_from(OUTCOMES), max_size=8)))
    items = draw(st.dictionaries(nodes, st.integers(0, 3)))
    skipped = draw(st.frozensets(st.sampled_from(names))) if names else frozenset()
    adds = {}
    for name in names:
        below = [spec.name for spec in specs if any(need.process == name for need in spec.needs)]
        if not specs[names.index(name)].group and draw(st.integers(0, 3)) == 0:
            above = draw(st.sampled_from([None, *below]))
            adds[name] = (above, above is not None and draw(st.booleans()))
    draw(st.randoms(use_true_random=False)).shuffle(specs)
    return World(specs, outcomes, items, skipped, adds)


def again(world: World, *, reload: bool = False) -> World:
    return World(world.specs, world.outcomes, world.items, world.skipped, world.adds, reload)


@calmly
@given(worlds(), st.integers())
def test_every_graph_ends_and_so_does_all_in_it(world: World, seed: int) -> None:
    """The world itself asserts that nothing runs before what it needs, and nothing twice in one attempt."""
    world.run(Random(seed).randrange)
    assert world.graph.state in GRAPH_ENDED
    assert world.graph.head.open == 0 and not world.timers
    assert [command for command in world.log if isinstance(command, End)] == [End(world.graph.state)]
    for name, status in world.graph.statuses.items():
        needs = [(world.graph.statuses[need.process].state, need.required) for need in world.graph.parents(name)]
        delivered = all(
            not required or state in (ProcessState.SUCCESS, ProcessState.SKIPPED) for state, required in needs
        )
        assert "[" in name or world.graph.spec(name).group or delivered == (status.state != "UPSTREAM_FAILED")


@calmly
@given(worlds(), st.integers(), st.integers())
def test_the_order_of_events_makes_no_difference(world: World, one: int, other: int) -> None:
    assert world.run(Random(one).randrange).states() == again(world).run(Random(other).randrange).states()


@calmly
@given(worlds(), st.integers())
def test_a_graph_that_is_saved_and_loaded_goes_on_identically(world: World, seed: int) -> None:
    loaded = again(world, reload=True).run(Random(seed).randrange)
    assert world.run(Random(seed).randrange).log == loaded.log
    assert world.graph == loaded.graph


@calmly
@given(worlds(), st.integers(), st.integers(0, 30))
def test_a_loaded_graph_asks_for_what_is_outstanding(world: World, seed: int, stop: int) -> None:
    """A runner that dies after ``stop`` events and knows nothing but the graph comes to the same end."""
    dice = Random(seed)
    world.tell(Submitted(tuple(world.specs), max_step_inputs=1000))
    for _ in range(stop):
        if world.possible:
            world.tell(world.possible.pop(dice.randrange(len(world.possible))))
    heir = again(world)
    heir.graph, heir.stored = world.graph, world.stored
    for command in outstanding(world.graph):
        heir.obey(command)
    for name in world.graph.processes():
        status = world.graph.statuses[name]
        if status.state is ProcessState.RUNNING and status.given_out:
            heir.began(name, status.attempt)
    assert heir.timers == world.timers
    heir.specs = []
    heir.tell = _without_submission(heir)  # type: ignore[method-assign]
    assert heir.run(dice.randrange).states() == again(world).run().states()


def _without_submission(world: World):  # type: ignore[no-untyped-def]
    tell = type(world).tell
    return lambda event: None if isinstance(event, Submitted) else tell(world, event)


@calmly
@given(worlds(), st.integers(), st.integers(0, 30), st.booleans())
def test_cancelling_ends_it(world: World, seed: int, stop: int, whole: bool) -> None:
    dice = Random(seed)
    world.tell(Submitted(tuple(world.specs), max_step_inputs=1000))
    for _ in range(stop):
        if world.possible:
            world.tell(world.possible.pop(dice.randrange(len(world.possible))))
    if whole:
        over = world.graph.head.open == 0
        world.tell(Cancelled())
        assert world.graph.head.open == 0 and not world.timers
        assert over or world.graph.state == "CANCELLED"
        return
    victim = dice.choice(world.graph.processes() or ["nobody"])
    world.tell(Cancelled(victim))
    assert victim not in world.graph or world.graph.statuses[victim].ended


@calmly
@given(worlds(), st.integers())
def test_what_a_step_writes_is_about_its_neighbours(world: World, seed: int) -> None:
    """No more than a few records for each process and edge, over a whole run."""
    world.run(Random(seed).randrange)
    touched = len(world.graph) + len(world.graph.needs) + len(world.given_out)
    assert sum(world.written) <= 10 * touched + 10


def test_an_empty_graph_is_over_at_once() -> None:
    graph, commands = step(Graph(), Submitted(()))
    assert graph.state == "SUCCESS" and commands == (End(graph.state),)
