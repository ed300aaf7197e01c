"""Which managed flows may begin, and which fail with others: the workflow engine's graph, over flows that come one by
one. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from coflows.errors import FlowError
from coflows.workflow.graph import Graph, step
from coflows.workflow.graph.checks import find_cycle
from coflows.workflow.graph.commands import Start
from coflows.workflow.graph.events import Cancelled, Event, Failed, Started, Submitted, Succeeded
from coflows.workflow.graph.process import Need, Policy, ProcessSpec, Status
from coflows.workflow.graph.states import Awaits, ProcessState


class DependencyType(StrEnum):
    """What a flow does without what it depends on."""

    REQUIRED = "required"
    """It fails too."""
    OPTIONAL = "optional"
    """It runs without."""


@dataclass(slots=True)
class Change:
    """What an event led to: flows that may begin (again), and flows that fail because of another, with that one."""

    ready: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)


@dataclass(slots=True)
class _Flow:
    name: str
    """What the engine calls it: ids may be what they like."""
    retries: int
    needs: dict[str, DependencyType] = field(default_factory=dict)
    children: dict[str, None] = field(default_factory=dict)
    running: bool = False
    well: bool | None = None
    """How it ended; None while it has not."""


class Dependencies:
    """The flows of one context. The engine's graph holds those that have not ended, and is made anew when flows or
    dependencies came to it. Not thread-safe."""

    def __init__(self) -> None:
        self._flows: dict[str, _Flow] = {}
        self._ids: dict[str, str] = {}
        self._graph: Graph | None = None

    def add(self, flow: str, retries: int = 0) -> None:
        """A flow, which is tried again ``retries`` times."""
        name = str(len(self._ids))
        self._flows[flow] = _Flow(name, retries)
        self._ids[name] = flow
        self._graph = None

    def connect(self, parent: str, child: str, kind: DependencyType) -> None:
        """``child`` depends on ``parent``. Raises FlowError when a flow is unknown, when that makes a cycle, or when
        the child has begun."""
        above, below = self._flows.get(parent), self._flows.get(child)
        if above is None or below is None:
            missing = parent if above is None else child
            raise FlowError(
                f"Cannot register dependency - flows not found: {missing}", hint="Register both flows first."
            )
        if path := self._path(child, parent):
            raise FlowError("Adding dependency would create a cycle", hint=f"It is {' -> '.join([*path, child])}.")
        if below.running or below.well is not None:
            raise FlowError(f"Flow {child} has begun already", hint="Register what it depends on before.")
        below.needs[parent] = kind
        above.children[child] = None
        self._graph = None

    def needs(self, flow: str) -> dict[str, DependencyType]:
        """What a flow depends on."""
        return dict(self._flows[flow].needs) if flow in self._flows else {}

    def in_cycle(self, flow: str) -> bool:
        """Whether a cycle can be reached from the flow."""
        down: dict[str, list[str]] = {}
        todo = [flow] if flow in self._flows else []
        while todo:
            one = todo.pop()
            if one not in down:
                down[one] = list(self._flows[one].children)
                todo += down[one]
        return bool(find_cycle(down))

    def open_ancestors(self, flow: str) -> list[str]:
        """The flow, and what it depends on at any distance, as far as it has not ended."""
        found: dict[str, None] = {}
        todo = [flow]
        while todo:
            one = todo.pop()
            if one not in found and self._flows[one].well is None:
                found[one] = None
                todo += self._flows[one].needs
        return list(found)

    def refresh(self) -> Change:
        """Look at what may begin, after flows or dependencies were added."""
        change = Change()
        if self._graph is not None:
            return change
        held = {id for id, one in self._flows.items() if one.well is None}
        lost = {parent for id in held for parent in self._flows[id].needs if self._flows[parent].well is False}
        specs = tuple(self._spec(id, held | lost) for id in (*held, *lost))
        self._graph = Graph()
        self._step(Submitted(specs), change)
        for flow in lost:
            self._step(Cancelled(self._flows[flow].name), change)
        for flow in held:
            if self._flows[flow].running:
                self._step(Started(self._flows[flow].name, 1), change)
        change.ready = [flow for flow in change.ready if self.may_begin(flow)]
        return change

    def may_begin(self, flow: str) -> bool:
        """Whether all that the flow waits for is over, and it has not begun. Call ``refresh`` before."""
        one = self._flows[flow]
        return one.well is None and not one.running and self._status(one).awaits is Awaits.EXECUTOR

    def begin(self, flow: str) -> None:
        """The flow has begun; it was ready."""
        one = self._flows[flow]
        self._step(Started(one.name, self._status(one).attempt), Change())
        one.running = True

    def succeed(self, flow: str) -> Change:
        """The flow has ended well."""
        return self._end(flow, well=True)

    def fail(self, flow: str, reason: str, *, retry: bool = False) -> Change:
        """The flow failed; ``retry``: it may be tried again, and then it is ready."""
        one = self._flows[flow]
        if not (retry and one.running and one.retries > 0):
            return self._end(flow, well=False, reason=reason)
        change = self.refresh()
        one.running, one.retries = False, one.retries - 1
        self._step(Failed(one.name, self._status(one).attempt, reason), change)
        return change

    def _end(self, flow: str, *, well: bool, reason: str = "") -> Change:
        one = self._flows[flow]
        if one.well is not None:
            return Change()
        change = self.refresh()
        if one.well is not None:
            return change  # It failed with what it depends on.
        attempt = self._status(one).attempt
        ran, one.running, one.well = one.running, False, well
        if not well:
            event: Event = Failed(one.name, attempt, reason, retry=False) if ran else Cancelled(one.name)
            self._step(event, change)
        elif ran:
            self._step(Succeeded(one.name, attempt), change)
        else:
            self._graph = None  # Somebody else said that it is over, without its being begun here.
            later = self.refresh()
            change.ready += later.ready
            change.failed += later.failed
        change.ready = [other for other in dict.fromkeys(change.ready) if self.may_begin(other)]
        return change

    # ----------------------------------------------------------------------------------------------------------

    def _spec(self, flow: str, held: set[str]) -> ProcessSpec:
        one = self._flows[flow]
        needs = tuple(
            Need(self._flows[parent].name, required=kind is DependencyType.REQUIRED)
            for parent, kind in one.needs.items()
            if parent in held and one.well is None
        )
        return ProcessSpec(one.name, needs, Policy(maxretries=one.retries))

    def _status(self, one: _Flow) -> Status:
        assert self._graph is not None
        return self._graph.statuses[one.name]

    def _step(self, event: Event, change: Change) -> None:
        assert self._graph is not None
        self._graph, commands = step(self._graph, event)
        change.ready += [self._ids[command.process] for command in commands if isinstance(command, Start)]
        lost = {
            self._ids[name]: self._flows[self._ids[name]]
            for name, status in self._graph.delta.statuses.items()
            if status.state is ProcessState.UPSTREAM_FAILED
        }
        failed = {flow: one for flow, one in lost.items() if one.well is None}
        for one in failed.values():
            one.well = False
        change.failed += [(flow, self._culprit(one)) for flow, one in failed.items()]

    def _culprit(self, one: _Flow) -> str:
        """The nearest flow that this one fails with."""
        return next(
            parent
            for parent, kind in one.needs.items()
            if kind is DependencyType.REQUIRED and self._flows[parent].well is False
        )

    def _path(self, top: str, bottom: str) -> list[str]:
        """A way down from ``top`` to ``bottom``; [] when there is none."""
        above: dict[str, str | None] = {top: None}
        todo = [top]
        while todo:
            one = todo.pop()
            if one == bottom:
                path: list[str] = []
                step_up: str | None = one
                while step_up is not None:
                    path.append(step_up)
                    step_up = above[step_up]
                return path[::-1]
            for child in self._flows[one].children:
                if child not in above:
                    above[child] = one
                    todo.append(child)
        return []
