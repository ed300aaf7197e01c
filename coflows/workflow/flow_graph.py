"""The steps of a FlowSpec and how they hang together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from coflows.errors import WorkflowInvalidError
from coflows.workflow.decorators import Step, definition_of
from coflows.workflow.flow_step import FlowNode, FlowStep
from coflows.workflow.graph.checks import check_processes
from coflows.workflow.graph.process import Need, ProcessSpec, parse_child
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.graph.value import Graph
from coflows.workflow.pictures.mermaid import to_mermaid
from coflows.workflow.pictures.picture import Picture, PictureEdge, PictureNode, counted
from coflows.workflow.pictures.svg import to_svg

if TYPE_CHECKING:
    from coflows.workflow.flow_spec import FlowSpec

OWN_NAMES = frozenset({"name", "input", "config", "client", "graph", "runner", "run", "cancel", "get_result"})
"""What a FlowSpec itself is made of."""


class FlowGraph:
    """The steps of a flow. Raises WorkflowInvalidError, which names the step, when they make no graph. Shown in a
    notebook as a picture."""

    def __init__(self, flow_spec: FlowSpec) -> None:
        self.flow_spec = flow_spec
        self.steps = [FlowStep(name, function, noted) for name, function, noted in _steps_of(type(flow_spec))]
        self.steps_by_definition = {step.definition: step for step in self.steps}
        self._by_name = {step.name: step for step in self.steps}
        self._connect(flow_spec.config.max_step_inputs)
        self.start_steps = [step for step in self.steps if not step.predecessors]
        for step in self.steps:
            step.reset()

    def get_step(self, definition: Step) -> FlowStep:
        """The step of a definition; raises WorkflowInvalidError when it is of another flow."""
        found = self.steps_by_definition.get(definition)
        return found or self.step_named(definition.get_id())

    def step_named(self, name: str) -> FlowStep:
        """The step of a name; raises WorkflowInvalidError."""
        if name not in self._by_name:
            raise WorkflowInvalidError(
                f"{name} is no step of {type(self.flow_spec).__name__}.",
                hint=f"Its steps are {', '.join(self._by_name)}.",
            )
        return self._by_name[name]

    def processes(self) -> list[ProcessSpec]:
        """The steps as the engine knows them."""
        return [step.process() for step in self.steps]

    def follow(self, graph: Graph, result: Callable[[str], Any]) -> None:
        """Take over what the engine's last step changed; ``result`` gives what a process gave."""
        for name, status in graph.delta.statuses.items():
            child = parse_child(name)
            step = self._by_name.get(name if child is None else child[0])
            if step is None:
                continue  # On executors a condition has a process of its own.
            if child is None:
                step.state, step.items = status.state, status.items
                if step.expanded and status.state is ProcessState.SKIPPED and not step.nodes:
                    step.nodes.append(FlowNode(step, 0))
                if step.expanded and status.state is not ProcessState.SKIPPED:
                    continue
            index = 0 if child is None else child[1]
            while index >= len(step.nodes):  # From afar one may hear of a later one first.
                step.nodes.append(FlowNode(step, len(step.nodes)))
            node = step.nodes[index]
            node.state, node.error, node.attempts = status.state, status.reason or None, status.attempt
            if status.state is ProcessState.SUCCESS:
                node.result = result(name)

    # -- pictures ----------------------------------------------------------------------------------------------

    def picture(self) -> Picture:
        """Steps, edges and states, to be drawn."""
        nodes = [
            PictureNode(
                step.name, counted(step.name, len(step.nodes) * step.expanded), step.state, step.docstring or ""
            )
            for step in self.steps
        ]
        edges = [
            PictureEdge(before.name, step.name, _edge(before, step), dashed=before in step.optional)
            for step in self.steps
            for before in step.predecessors
        ]
        return Picture(nodes, edges)

    def to_mermaid(self) -> str:
        """A Mermaid diagram, coloured by state."""
        return to_mermaid(self.picture())

    def to_svg(self) -> str:
        """An SVG image, coloured by state; made here, without a service."""
        return to_svg(self.picture())

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the steps with their predecessors, and the nodes with their states."""
        return {
            "name": self.flow_spec.name,
            "steps": [
                {
                    "id": step.name,
                    "docs": step.docstring,
                    "state": str(step.state),
                    "predecessors": [before.name for before in step.predecessors],
                    "flow_endpoint": step.definition.remote.flow_endpoint if step.definition.remote else None,
                }
                for step in self.steps
            ],
            "nodes": [
                {
                    "id": node.id,
                    "parent_id": step.name,
                    "state": str(node.state),
                    "status": node.status,
                    "error": node.error,
                    "attempts": node.attempts,
                    "run_id": node.run_id,
                    "predecessor_ids": [before.id for before in node.predecessors],
                }
                for step in self.steps
                for node in step.nodes
            ],
        }

    def _repr_html_(self) -> str:
        return f"<div>{self.to_svg()}</div>"

    # -- building ----------------------------------------------------------------------------------------------

    def _connect(self, max_step_inputs: int) -> None:
        flow = type(self.flow_spec).__name__
        if not self.steps:
            raise WorkflowInvalidError(f"{flow} has no steps.", hint="Put @step above its methods.")
        if all(step.definition.needs is None for step in self.steps):
            for before, step in zip(self.steps, self.steps[1:], strict=False):
                step.predecessors.append(before)
        for step in self.steps:
            for definition, required in step.definition.needs or ():
                before = self._predecessor(step, definition)
                step.predecessors.append(before)
                if not required:
                    step.optional.add(before)
        needs = {step.name: tuple(Need(before.name) for before in step.predecessors) for step in self.steps}
        check_processes([ProcessSpec(*one) for one in needs.items()], max_needs=10**9)
        for step in self.steps:
            if len(step.predecessors) > max_step_inputs and not step.definition.join:
                raise WorkflowInvalidError(
                    f"Step {step.name} has {len(step.predecessors)} inputs; at most {max_step_inputs} are allowed.",
                    hint="Collect them with @join(), or raise it: conf=Configuration(max_step_inputs=...).",
                )
        for step in self.steps:
            for before in step.predecessors:
                before.successors.append(step)
        for step in self._from_the_start():
            step.expanded = step.definition.repetitions is not None or any(map(step.takes_each, step.predecessors))

    def _predecessor(self, step: FlowStep, definition: Step | str) -> FlowStep:
        """The step that another needs; by name where a subclass has written it anew."""
        name = definition if isinstance(definition, str) else definition.get_id()
        found = self.steps_by_definition.get(definition) if isinstance(definition, Step) else None
        found = found or self._by_name.get(name)
        if found is None:
            raise WorkflowInvalidError(
                f"Step {step.name} needs {name}, which is no step of {type(self.flow_spec).__name__}.",
                hint=f"Put @step above {name}, or mend the name.",
            )
        return found

    def _from_the_start(self) -> Iterator[FlowStep]:
        """Each step after all that it needs."""
        waits = {step: len(step.predecessors) for step in self.steps}
        ready = [step for step, count in waits.items() if not count]
        for step in ready:
            yield step
            for after in step.successors:
                waits[after] -= 1
                if not waits[after]:
                    ready.append(after)


def _edge(before: FlowStep, step: FlowStep) -> str:
    if step.definition.join:
        return "join"
    return "foreach" if before.definition.foreach else ""


def _steps_of(flow: type) -> list[tuple[str, Any, Step]]:
    """The steps of a class and those that it inherits, in the order written; what a class overrides keeps its place."""
    names: dict[str, None] = {}
    for base in reversed(flow.__mro__):
        names.update(dict.fromkeys(base.__dict__))
    found = []
    for name in names:
        function = getattr(flow, name, None)
        if isinstance(getattr(function, "step", None), Step):
            if name in OWN_NAMES:
                raise WorkflowInvalidError(
                    f"{flow.__name__} has a step named {name}, which every flow has for itself.",
                    hint="Rename the step.",
                )
            found.append((name, function, definition_of(function, flow.__name__)))
    return found
