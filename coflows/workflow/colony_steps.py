"""A FlowSpec as a workflow for a colony: each of its steps becomes a function that travels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, Protocol

from coflows.client import Client
from coflows.errors import WorkflowError
from coflows.workflow.colonies.function_spec import Conditions, Expansion, FunctionSpec, Workflow, func_spec
from coflows.workflow.configuration import Configuration
from coflows.workflow.decorators import Remote, Step
from coflows.workflow.flow_step import FlowStep
from coflows.workflow.graph.process import ProcessSpec
from coflows.workflow.remote_step import RemoteStep


class Flow(Protocol):
    """A FlowSpec."""

    input: Any
    config: Configuration


ASKS = "?"
"""What a step's name ends with in the name of the process that asks its condition."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a step makes of what the engine gives it."""

    start: tuple[Any, ...] | None = None
    """The flow's input, for a step without predecessors."""
    joins: tuple[bool, ...] | None = None
    """Of a join, for each predecessor: whether it gives a list of which each item counts."""

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """The arguments."""
        if self.start is not None:
            return list(self.start)
        if self.joins is None:
            return list(inputs)
        one: list[Any] = []
        for is_list, value in zip(self.joins, inputs, strict=True):
            one.extend(value if is_list and value is not None else [value])
        return [one]


def arguments_of(step: FlowStep, flow_input: object) -> Arguments:
    """How a step's arguments are made."""
    if not step.predecessors:
        return Arguments(start=(flow_input,))
    if not step.definition.join:
        return Arguments()
    return Arguments(joins=tuple(before.expanded or before.definition.foreach for before in step.predecessors))


def bound(step: FlowStep, flow: Flow) -> Callable[..., Any]:
    """A method with its flow as its ``self``; a function as it is."""
    function: Callable[..., Any] = step.step_function
    return MethodType(function, flow) if step.is_method else function


@dataclass(frozen=True)
class StepCall:
    """A step that runs on an executor."""

    name: str
    function: Callable[..., Any]
    arguments: Arguments
    takes_inputs: bool

    def __call__(self, *inputs: Any) -> Any:
        """Run it."""
        return self.function(*self.arguments(inputs)) if self.takes_inputs else self.function()


@dataclass(frozen=True)
class RemoteCall:
    """A step that is a served flow, asked by an executor as its own user."""

    name: str
    function: Callable[..., Any]
    arguments: Arguments
    takes_inputs: bool
    remote: Remote
    takes_ctx = True

    async def __call__(self, *inputs: Any, ctx: dict[str, Any]) -> dict[str, Any]:
        """Fetch an instance, ask it, and give it back."""
        client: Client | None = ctx.get("cl")
        if client is None:
            raise WorkflowError(
                f"Step {self.name} asks {self.remote.flow_endpoint}, and this executor runs steps in processes.",
                hint='Give it an executor with runs_in="thread".',
            )
        step = RemoteStep(self.name, self.remote, self.function, client, takes_inputs=self.takes_inputs)
        try:
            return await step.ask(*self.arguments(inputs))
        finally:
            step.release()


@dataclass(frozen=True)
class ConditionCall:
    """Asks the condition of a step."""

    name: str
    definition: Step

    def __call__(self) -> bool:
        """Whether the step is to run."""
        return not self.definition.skip()


def workflow_of(flow: Flow, steps: Sequence[FlowStep], colonyname: str, executortype: str) -> Workflow:
    """The flow as it is submitted. Raises WorkflowError when nobody said which executors take a step, and
    SerializationError when a step cannot travel."""
    workflow = Workflow(colonyname, fail_fast=flow.config.fail_fast, max_step_inputs=flow.config.max_step_inputs)
    for step in steps:
        workflow.functionspecs += _specs(step, flow, executortype)
    return workflow


def _specs(step: FlowStep, flow: Flow, executortype: str) -> list[FunctionSpec]:
    definition, process = step.definition, step.process()
    kind = definition.executortype or executortype
    if not kind:
        raise WorkflowError(
            f"Nothing says which executors run step {step.name}.",
            hint='Give @step(executortype="...") or run(cl=..., executortype="...").',
        )
    specs = []
    required = [need.process for need in process.needs if need.required]
    optional = [need.process for need in process.needs if not need.required]
    if definition.condition is not None:
        asks = f"{step.name}{ASKS}"
        condition = func_spec(ConditionCall(asks, definition), executortype=kind, nodename=asks)
        condition.conditions = Conditions(dependencies=required, optional=optional)
        condition.expansion = Expansion(blind=True)
        specs.append(condition)
        required = [*required, asks]
    function, arguments, takes = bound(step, flow), arguments_of(step, flow.input), step.takes_inputs
    call: StepCall | RemoteCall = StepCall(step.name, function, arguments, takes)
    if definition.remote is not None:
        call = RemoteCall(step.name, function, arguments, takes, definition.remote)
    spec = func_spec(call, executortype=kind, nodename=step.name, **_limits(process))
    spec.conditions = Conditions(dependencies=required, optional=optional)
    spec.expansion = Expansion(
        group=process.group,
        repetitions=process.repetitions,
        foreach=process.foreach,
        each=[need.process for need in process.needs if need.each],
        condition=required[-1] if definition.condition is not None else None,
        blind=not takes and definition.remote is None,
    )
    for one in (*specs, spec):  # A name that no function has that executors register.
        one.funcname = f"{type(flow).__name__}.{one.nodename}"
    return [*specs, spec]


def _limits(process: ProcessSpec) -> dict[str, Any]:
    names = ("maxexectime", "maxwaittime", "maxretries", "priority", "backoff")
    return {name: getattr(process.policy, name) for name in names}
