"""A step of a FlowSpec, and its executions in a run."""

from __future__ import annotations

import inspect
from typing import Any

from coflows.workflow.decorators import Step, parameter_names
from coflows.workflow.graph.process import Need, ProcessSpec
from coflows.workflow.graph.states import ENDED, ProcessState

STATUS_PENDING = "pending"
STATUS_RUNNING = "running"
STATUS_SUCCEEDED = "succeeded"
STATUS_FAILED = "failed"
STATUS_CANCELLED = "cancelled"
STATUS_SKIPPED = "skipped"
STATUSES = {
    ProcessState.WAITING: STATUS_PENDING,
    ProcessState.RUNNING: STATUS_RUNNING,
    ProcessState.SUCCESS: STATUS_SUCCEEDED,
    ProcessState.FAILED: STATUS_FAILED,
    ProcessState.UPSTREAM_FAILED: STATUS_FAILED,
    ProcessState.CANCELLED: STATUS_CANCELLED,
    ProcessState.SKIPPED: STATUS_SKIPPED,
}


class FlowNode:
    """One execution of a step. ``status`` is one of ``STATUS_*``, ``state`` the engine's finer one."""

    def __init__(self, parent: FlowStep, index: int) -> None:
        self.parent = parent
        self.index = index
        self.id = f"{parent.name}_{index}"
        self.reset()

    def reset(self) -> None:
        """As before a run."""
        self.state = ProcessState.WAITING
        self.error: str | None = None
        self.result: Any = None
        self.attempts = 0

    @property
    def status(self) -> str:
        """One of ``STATUS_*``."""
        return STATUSES[self.state]

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    @property
    def cancel(self) -> bool:
        """Whether it was cancelled."""
        return self.state is ProcessState.CANCELLED

    @property
    def run_id(self) -> str | None:
        """The instance that a remote step asks."""
        return self.parent.run_id

    @property
    def predecessors(self) -> list[FlowNode]:
        """The nodes whose results this one gets."""
        nodes: list[FlowNode] = []
        rest = self.index
        for step in reversed(self.parent.predecessors):
            if not self.parent.takes_each(step) or step.items is None:
                nodes.extend(reversed(step.nodes))
                continue
            rest, item = divmod(rest, step.items) if step.items else (0, 0)
            # A foreach step that is expanded itself has lists for results; whose item it is, nobody noted.
            one = step.nodes[item : item + 1] if step.expanded and not step.definition.foreach else step.nodes
            nodes.extend(reversed(one))
        return nodes[::-1]

    def __repr__(self) -> str:
        return f"FlowNode({self.id}, {self.status})"


class FlowStep:
    """A step of a flow: what was written, what is before and after it, and its nodes."""

    def __init__(self, name: str, function: Any, definition: Step) -> None:
        self.name = name
        self.step_function = function
        self.definition = definition
        self.docstring: str | None = function.__doc__
        self.predecessors: list[FlowStep] = []
        self.successors: list[FlowStep] = []
        self.optional: set[FlowStep] = set()
        """The predecessors that may fail."""
        parameters = parameter_names(function)
        self.is_method = inspect.isfunction(function) and parameters[:1] == ["self"]
        """Whether its function is called with the flow first."""
        self.takes_inputs = len(parameters) > self.is_method
        self.expanded = False
        """Whether it has as many nodes as it finds inputs, rather than one."""
        self.nodes: list[FlowNode] = []
        self.state = ProcessState.WAITING
        self.items: int | None = None
        """How many items it gave, where steps after it take them one by one."""
        self.run_id: str | None = None
        """The instance that a remote step asks."""

    def takes_each(self, predecessor: FlowStep) -> bool:
        """Whether there is a node of this step for each item of what a predecessor gave."""
        if self.definition.join:
            return False
        before = predecessor.definition
        return before.foreach or (before.repetitions is None and predecessor.expanded)

    @property
    def done(self) -> bool:
        """Whether it is over."""
        return self.state in ENDED

    @property
    def status(self) -> str:
        """One of ``STATUS_*``."""
        return STATUSES[self.state]

    def process(self) -> ProcessSpec:
        """The step as the engine knows it."""
        noted = self.definition
        return ProcessSpec(
            self.name,
            tuple(Need(one.name, one not in self.optional, self.takes_each(one)) for one in self.predecessors),
            noted.policy,
            noted.executortype,
            group=self.expanded,
            repetitions=1 if noted.repetitions is None else noted.repetitions,
            foreach=noted.foreach,
            conditional=noted.condition is not None,
        )

    def reset(self) -> None:
        """As before a run."""
        self.state, self.items, self.run_id = ProcessState.WAITING, None, None
        del self.nodes[not self.expanded :]
        for node in self.nodes:
            node.reset()
        if not self.nodes and not self.expanded:
            self.nodes.append(FlowNode(self, 0))

    def __repr__(self) -> str:
        return f"FlowStep({self.name})"
