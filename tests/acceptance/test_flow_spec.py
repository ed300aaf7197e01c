"""Workflows as classes: the programs of the second seed with their results, and what each decorator does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coflows.errors import CoflowsError, WorkflowInvalidError
from coflows.workflow import (
    STATUS_FAILED,
    STATUS_PENDING,
    STATUS_RUNNING,
    STATUS_SKIPPED,
    STATUS_SUCCEEDED,
    Configuration,
    FlowGraph,
    FlowNode,
    FlowSpec,
    FlowStep,
    Runner,
    foreach,
    join,
    needs,
    optional,
    repeat,
    step,
)


class MyFlow(FlowSpec):
    """The seed's first program, as it stands there."""

    @step
    def step1(self, input_data):
        """Takes the input in."""
        return {"processed": input_data}

    @step
    def step2(self, input_data):
        return {"result": input_data["processed"] * 2}


def test_the_seeds_first_program() -> None:
    flow = MyFlow("my-flow", 5)
    assert flow.get_result(flow.step2) is None
    flow.run()
    assert flow.get_result(flow.step2) == {"result": 10}
    assert flow.get_result(MyFlow.step1) == flow.get_result("step1") == {"processed": 5}


class Processing(FlowSpec):
    """The seed's other lines: ``result = flow.get_result(flow.process_data)``."""

    @step
    def process_data(input):
        return [number + 1 for number in input["numbers"]]


def test_the_seeds_get_result() -> None:
    flow = Processing("processing", {"numbers": [1, 2]})
    flow.run()
    result = flow.get_result(flow.process_data)
    assert result == [2, 3]


def test_the_seeds_first_program_with_the_seeds_input() -> None:
    """Two times a dict is a TypeError, and the flow says whose."""
    flow = MyFlow("my-flow", {"value": 5})
    with pytest.raises(RuntimeError, match=r"^Flow failed: Step step2 failed: unsupported operand") as caught:
        flow.run()
    assert isinstance(caught.value.__cause__, TypeError) and isinstance(caught.value, CoflowsError)
    assert flow.runner.fail and flow.runner.fail_reason == str(caught.value).removeprefix("Flow failed: ")
    assert flow.get_result(flow.step1) == {"processed": {"value": 5}}


def test_what_the_seed_says_of_the_classes() -> None:
    flow = MyFlow("my-flow", 5, Configuration(thread_count=2))
    assert (flow.name, flow.input, flow.config.thread_count, flow.client) == ("my-flow", 5, 2, None)
    assert isinstance(flow.graph, FlowGraph) and isinstance(flow.runner, Runner)
    assert flow.graph.flow_spec is flow and Configuration().max_step_inputs == 50
    first, second = flow.graph.steps
    assert isinstance(first, FlowStep) and flow.graph.start_steps == [first]
    assert flow.graph.get_step(MyFlow.step1.step) is first
    assert flow.graph.steps_by_definition == {first.definition: first, second.definition: second}
    assert first.successors == [second] and second.predecessors == [first]
    assert first.docstring == "Takes the input in." and not first.done
    (node,) = first.nodes
    assert (node.status, node.result, node.done, node.error, node.run_id) == (STATUS_PENDING, None, False, None, None)
    flow.run()
    assert (node.id, node.index, node.parent) == ("step1_0", 0, first)
    assert (node.status, node.result, node.done, node.cancel) == (STATUS_SUCCEEDED, {"processed": 5}, True, False)
    assert second.done and isinstance(second.nodes[0], FlowNode) and second.nodes[0].predecessors == [node]
    constants = [STATUS_PENDING, STATUS_RUNNING, STATUS_SUCCEEDED, STATUS_FAILED]
    assert constants == ["pending", "running", "succeeded", "failed"]


def test_a_flow_runs_again() -> None:
    flow = MyFlow("my-flow", 5)
    flow.run()
    flow.input = 7
    flow.run()
    assert flow.get_result(flow.step2) == {"result": 14}


def test_get_result_of_what_is_no_step() -> None:
    flow = MyFlow("my-flow", 5)
    with pytest.raises(WorkflowInvalidError, match="run is no step"):
        flow.get_result(flow.run)
    with pytest.raises(WorkflowInvalidError, match=r"step9 is no step of MyFlow\. Its steps are "):
        flow.get_result("step9")
    with pytest.raises(WorkflowInvalidError, match="c is no step of MyFlow"):
        flow.get_result(Lists.c)


class Base(FlowSpec):
    @step
    def first(data):
        return [data]

    @needs(predecessors=[first])
    @step
    async def second(self, data):
        await asyncio.sleep(0)
        return [*data, self.name]


class Derived(Base):
    @needs(predecessors=[Base.second])
    @step
    def third(data):
        return [*data, 3]

    @needs(predecessors=[Base.first, Base.second, third])
    @step
    @staticmethod
    def fourth(one, two, three):
        return (one, two, three)


class Overriding(Derived):
    @step
    def first(self, data):
        return [data, "anew"]


def test_functions_methods_coroutines_and_what_is_inherited() -> None:
    flow = Derived("d", 0)
    flow.run()
    assert [one.name for one in flow.graph.steps] == ["first", "second", "third", "fourth"]
    assert flow.get_result(flow.fourth) == ([0], [0, "d"], [0, "d", 3])
    other = Overriding("o", 0)
    other.run()
    assert other.get_result(Overriding.third) == [0, "anew", "o", 3]


class Lists(FlowSpec):
    @foreach()
    @step
    def a(data):
        return list(range(data))

    @foreach()
    @step
    def b():
        return ["x", "y"]

    @needs(predecessors=[a, b])
    @step
    def c(self, number, letter):
        return f"{number}{letter}"

    @needs(predecessors=[c])
    @step
    def d(text):
        return text * 2

    @join()
    @needs(predecessors=[d, b])
    @step
    def e(everything):
        return everything


def test_foreach_expands_in_the_order_of_the_product_and_join_collects() -> None:
    flow = Lists("lists", 3)
    flow.run()
    assert flow.get_result(flow.c) == ["0x", "0y", "1x", "1y", "2x", "2y"]
    assert flow.get_result(flow.d) == ["0x0x", "0y0y", "1x1x", "1y1y", "2x2x", "2y2y"]
    assert flow.get_result(flow.e) == [*flow.get_result(flow.d), "x", "y"]
    c, d = flow.graph.step_named("c"), flow.graph.step_named("d")
    assert [node.id for node in c.nodes] == ["c_0", "c_1", "c_2", "c_3", "c_4", "c_5"]
    assert [node.id for node in d.nodes[3].predecessors] == ["c_3"]
    assert [node.id for node in c.nodes[3].predecessors] == ["a_0", "b_0"]


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, ["0x0x", "0y0y"])])
def test_lists_of_one_and_none(count: int, expected: list[str]) -> None:
    flow = Lists("lists", count)
    flow.run()
    assert flow.get_result(flow.d) == expected
    assert flow.get_result(flow.e) == [*expected, "x", "y"]
    assert all(one.done for one in flow.graph.steps)


class Repeated(FlowSpec):
    @repeat(repetitions=3)
    @step
    def thrice(data):
        return data

    @repeat(repetitions=0)
    @step
    def never(data):
        raise AssertionError

    @repeat(repetitions=1)
    @step
    def once(data):
        return data

    @needs(predecessors=[thrice, never, once])
    @step
    def after(*lists):
        return lists


def test_repeat_gives_nodes_and_those_after_it_get_their_list() -> None:
    flow = Repeated("r", 7)
    flow.graph.step_named("after")
    flow.run()
    assert flow.get_result(flow.thrice) == [7, 7, 7]
    assert flow.get_result(flow.never) == []
    assert flow.get_result(flow.once) == [7]
    assert flow.get_result(flow.after) == ([7, 7, 7], [], [7])


def test_repeat_of_an_expanded_step() -> None:
    class Samples(FlowSpec):
        @foreach()
        @step
        def seeds():
            return [1, 2]

        @repeat(repetitions=2)
        @needs(predecessors=[seeds])
        @step
        def sample(seed):
            return seed * 10

        @needs(predecessors=[sample])
        @step
        def best(samples):
            return max(samples), samples

    flow = Samples("samples")
    flow.run()
    assert flow.get_result(flow.sample) == [10, 20, 10, 20]
    assert flow.get_result(flow.best) == (20, [10, 20, 10, 20])


def test_foreach_within_foreach_takes_all_items_one_after_the_other() -> None:
    class Nested(FlowSpec):
        @foreach()
        @step
        def books():
            return ["ab", "", "cde"]

        @foreach()
        @needs(predecessors=[books])
        @step
        def letters(book):
            return list(book)

        @needs(predecessors=[letters])
        @step
        def upper(letter):
            return letter.upper()

    flow = Nested("nested")
    flow.run()
    assert flow.get_result(flow.letters) == [["a", "b"], [], ["c", "d", "e"]]
    assert flow.get_result(flow.upper) == ["A", "B", "C", "D", "E"]


@pytest.mark.parametrize("wanted", [True, False])
def test_optional(wanted: bool) -> None:
    asked = []

    class Choosing(FlowSpec):
        @optional(condition=lambda step: asked.append(step.get_id()) or wanted)
        @step
        def maybe(data):
            return data

        @optional(condition=lambda: wanted)
        @repeat(repetitions=2)
        @step
        def often(data):
            return data

        @needs(predecessors=[maybe, often])
        @step
        def after(one, several):
            return (one, several)

    flow = Choosing("c", 1)
    flow.run()
    assert asked == ["maybe"]
    assert flow.get_result(flow.after) == ((1, [1, 1]) if wanted else (None, None))
    states = [flow.graph.step_named("maybe").state, *(node.state for node in flow.graph.step_named("often").nodes)]
    assert states == (["SUCCESS"] * 3 if wanted else ["SKIPPED"] * 2)
    assert flow.graph.step_named("maybe").status == (STATUS_SUCCEEDED if wanted else STATUS_SKIPPED)


def test_a_skipped_foreach_passes_none_on() -> None:
    class Skipping(FlowSpec):
        @optional(condition=lambda: False)
        @foreach()
        @step
        def items():
            return [1, 2]

        @needs(predecessors=[items])
        @step
        def each(item):
            return [item]

    flow = Skipping("s")
    flow.run()
    assert flow.get_result(flow.each) == [[None]]


def test_a_condition_sees_what_ran_before() -> None:
    class Looking(FlowSpec):
        @step
        def number(self, data):
            self.number_found = data
            return data

        @step
        def shown(self):
            return f"shown {self.input}"

    flow = Looking("l", 3)
    Looking.shown.step.condition = lambda: flow.number_found > 2
    flow.run()
    assert flow.get_result(flow.shown) == "shown 3"


def test_an_optional_predecessor_may_fail() -> None:
    class Tolerant(FlowSpec):
        @step
        def bad():
            raise ValueError("boom")

        @step
        def good():
            return 1

        @needs(predecessors=[good], optional=[bad])
        @step
        def after(one, other):
            return (one, other)

    flow = Tolerant("t")
    flow.run()
    assert flow.get_result(flow.after) == (1, None)
    assert flow.graph.step_named("bad").status == STATUS_FAILED


# -- what is wrong with a flow, said with the step's name ------------------------------------------------------------


def test_a_failure_names_the_step_and_its_cause() -> None:
    class Failing(FlowSpec):
        @step
        def a():
            raise ValueError("boom")

        @needs(predecessors=[a])
        @step
        def b(data):
            raise AssertionError

        @needs(predecessors=[b])
        @step
        def c(data):
            raise AssertionError

        @step
        def elsewhere():
            return "done"

        @needs(predecessors=[elsewhere])
        @step
        def after_elsewhere(data):
            return data

    flow = Failing("f")
    with pytest.raises(RuntimeError) as caught:
        flow.run()
    assert str(caught.value) == "Flow failed: Step a failed: boom"
    assert isinstance(caught.value.__cause__, ValueError)
    states = {one.name: str(one.state) for one in flow.graph.steps}
    assert states == {
        "a": "FAILED",
        "b": "UPSTREAM_FAILED",
        "c": "UPSTREAM_FAILED",
        "elsewhere": "SUCCESS",
        "after_elsewhere": "SUCCESS",
    }
    assert flow.graph.step_named("a").nodes[0].error == "boom"


@pytest.mark.parametrize(
    ("error", "text"),
    [(KeyError("x"), "KeyError: 'x'"), (ValueError(), "ValueError"), (SystemExit(3), "SystemExit: 3")],
)
def test_a_failure_whose_text_says_little_names_its_type(error: BaseException, text: str) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(RuntimeError) as caught:
        flow_of(a=step(fail)).run()
    assert str(caught.value) == f"Flow failed: Step a failed: {text}"


def test_a_failure_of_one_of_many_nodes() -> None:
    class Many(FlowSpec):
        @foreach()
        @step
        def items():
            return [1, 0, 2]

        @needs(predecessors=[items])
        @step
        def inverse(item):
            return 1 / item

        @join()
        @needs(predecessors=[inverse])
        @step
        def total(all):
            raise AssertionError

    flow = Many("m")
    with pytest.raises(
        RuntimeError, match=r"^Flow failed: Step inverse failed: division by zero \(node inverse_1\)$"
    ) as caught:
        flow.run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert flow.get_result(flow.inverse) == [1.0, None, 0.5]
    assert [node.status for node in flow.graph.step_named("inverse").nodes] == ["succeeded", "failed", "succeeded"]


def test_a_cycle_is_a_path() -> None:
    with pytest.raises(WorkflowInvalidError, match="in a cycle: a -> b -> c -> a"):

        class Cycle(FlowSpec):
            @needs(predecessors=["c"])
            @step
            def a(data): ...

            @needs(predecessors=[a])
            @step
            def b(data): ...

            @needs(predecessors=[b])
            @step
            def c(data): ...

        Cycle("c")


def test_a_cycle_made_afterwards() -> None:
    class Cycle(FlowSpec):
        @step
        def a(data): ...

        @needs(predecessors=[a])
        @step
        def b(data): ...

        needs(predecessors=[b])(a)

    with pytest.raises(WorkflowInvalidError, match="a -> b -> a"):
        Cycle("c")


def flow_of(**steps: Any) -> FlowSpec:
    return type("Made", (FlowSpec,), steps)("made", 1)


def test_bad_graphs() -> None:
    with pytest.raises(WorkflowInvalidError, match="Made has no steps"):
        flow_of()
    with pytest.raises(WorkflowInvalidError, match="Step a depends on itself"):
        flow_of(a=needs(predecessors=["a"])(step(lambda data: data)))
    with pytest.raises(WorkflowInvalidError, match="Step a needs b, which is no step of Made"):
        flow_of(a=needs(predecessors=["b"])(step(lambda data: data)))
    with pytest.raises(WorkflowInvalidError, match="Step b depends on a twice"):
        flow_of(a=step(lambda data: data), b=needs(predecessors=["a", "a"])(step(lambda one, two: 0)))
    with pytest.raises(WorkflowInvalidError, match="Made has a step named run, which every flow has for itself"):
        flow_of(run=step(lambda data: data))
    with pytest.raises(WorkflowInvalidError, match="@needs got 'a', not a list"):
        needs(predecessors="a")
    with pytest.raises(WorkflowInvalidError, match="condition True cannot be called"):
        optional(condition=True)  # type: ignore[arg-type]
    with pytest.raises(WorkflowInvalidError, match="runs in a thread or a process, not in 'moon'"):
        step(runs_in="moon")  # type: ignore[call-overload]
    with pytest.raises(WorkflowInvalidError, match="repetitions is -1"):
        repeat(repetitions=-1)
    with pytest.raises(WorkflowInvalidError, match="max_step_inputs=-1"):
        Configuration(max_step_inputs=-1)


def test_undecorated_steps() -> None:
    def plain(data): ...

    with pytest.raises(WorkflowInvalidError, match="Step b needs a step: plain is no step"):

        @needs(predecessors=[plain])
        @step
        def b(data): ...

    class Forgetful(FlowSpec):
        @repeat(repetitions=2)
        def forgotten(data): ...

    with pytest.raises(WorkflowInvalidError, match=r"Forgetful: forgotten is no step\. Put @step above def forgotten"):
        Forgetful("f")


def test_a_condition_that_fails_and_an_error_that_cannot_say_what_it_is() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise ValueError

    class Failing(FlowSpec):
        @optional(condition=lambda: 1 / 0)
        @step
        def asked():
            raise AssertionError

    class Silent(FlowSpec):
        @step
        def mute():
            raise Mute

    with pytest.raises(RuntimeError, match=r"^Flow failed: Step asked failed: division by zero$") as caught:
        Failing("f").run()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(RuntimeError, match=r"^Flow failed: Step mute failed: Mute$"):
        Silent("s").run()


def test_a_foreach_that_got_no_list() -> None:
    class NoList(FlowSpec):
        @foreach()
        @step(maxretries=3)
        def items():
            return {"not": "a list"}

        @needs(predecessors=[items])
        @step
        def each(item): ...

    flow = NoList("n")
    with pytest.raises(RuntimeError, match=r"Step items failed: a foreach step returns a list, and it returned dict"):
        flow.run()
    assert flow.graph.step_named("items").nodes[0].attempts == 1, "trying again would not help"


def test_too_many_inputs() -> None:
    flow = Lists("lists", 26)
    with pytest.raises(
        RuntimeError, match=r"Step c failed: .*52 inputs; at most 50 .*conf=Configuration\(max_step_inputs=52\)"
    ):
        flow.run()
    flow = Lists("lists", 26, Configuration(max_step_inputs=52))
    flow.run()
    assert len(flow.get_result(flow.e)) == 54
    wide = {f"s{number}": step(lambda data: data) for number in range(51)}
    with pytest.raises(WorkflowInvalidError, match="Step end has 51 inputs; at most 50 are allowed"):
        flow_of(**wide, end=needs(predecessors=list(wide))(step(lambda *all: all)))
    joined = flow_of(**wide, end=join()(needs(predecessors=list(wide))(step(lambda all: len(all)))))
    joined.run()
    assert joined.get_result("end") == 51
