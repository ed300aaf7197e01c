"""Runs a FlowSpec: its steps as bodies of a local run, and what becomes of them as results and errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import MethodType
from typing import TYPE_CHECKING, Any

from coflows.errors import WorkflowCancelledError, WorkflowError, WorkflowFailedError
from coflows.pools.process_pool import ProcessPool
from coflows.workflow.configuration import Configuration
from coflows.workflow.flow_graph import FlowGraph
from coflows.workflow.flow_step import FlowStep
from coflows.workflow.graph.process import parse_child
from coflows.workflow.graph.states import GraphState, ProcessState
from coflows.workflow.graph.value import Graph
from coflows.workflow.local.body import Body
from coflows.workflow.local.run import LocalRun
from coflows.workflow.progress import Progress
from coflows.workflow.remote_step import RemoteStep
from coflows.workflow.watchers import Watcher

if TYPE_CHECKING:
    from coflows.workflow.colony_steps import ColonySteps
    from coflows.workflow.flow_spec import FlowSpec

logger = logging.getLogger(__name__)


class Runner:
    """Runs the graph of a flow. ``fail`` and ``fail_reason`` tell how the last run went."""

    def __init__(self, spec: FlowSpec, graph: FlowGraph, config: Configuration) -> None:
        self.spec = spec
        self.graph = graph
        self.config = config
        self.fail = False
        self.fail_reason: str | None = None
        self._local: LocalRun | None = None
        self._results: LocalRun | None = None
        self._lock = threading.Lock()

    def run(
        self, *, progress: bool = False, watchers: Sequence[Watcher] = (), elsewhere: ColonySteps | None = None
    ) -> None:
        """Run to the end; see ``FlowSpec.run``. ``elsewhere``: where the steps run that are no served flows."""
        with ExitStack() as exit_stack:
            told = list(watchers)
            if progress:
                told.append(exit_stack.enter_context(Progress(self.graph)))
            local = self._prepare(exit_stack, told, elsewhere)
            try:
                end = local.run(self.graph.processes(), self.config.max_step_inputs)
            finally:
                with self._lock:
                    self._local = None
        self._judge(end, local)

    def cancel(self) -> None:
        """Cancel the run that goes on, if one does."""
        with self._lock:
            local = self._local
        if local is not None:
            local.cancel()

    def result(self, step: FlowStep) -> Any:
        """What a step gave in the last run; a list where it expanded, None when it is not done."""
        if not step.done or self._results is None:
            return None
        outputs = self._results.outputs
        if not step.expanded:
            return outputs.get(step.name)
        return None if step.state is ProcessState.SKIPPED else outputs.of_group(self._results.graph, step.name)

    def _prepare(self, exit_stack: ExitStack, watchers: list[Watcher], elsewhere: ColonySteps | None) -> LocalRun:
        with self._lock:
            if self._local is not None:
                raise WorkflowError(f"{self.spec!r} is running.", hint="Make another one, or wait for its end.")
            for step in self.graph.steps:
                step.reset()
            self.fail, self.fail_reason = False, None
            pool: list[ProcessPool] = []
            pool_lock = threading.Lock()

            def processes() -> ProcessPool:
                with pool_lock:  # Steps that end at the same time may both be followed by the first one in a process.
                    if not pool:
                        pool.append(exit_stack.enter_context(ProcessPool(self.config.processes)))
                    return pool[0]

            local = self._local = self._results = LocalRun(
                {step.name: self._body(step, exit_stack, elsewhere) for step in self.graph.steps},
                threads=self.config.threads,
                processes=processes,
                process_count=self.config.processes,
                watch=lambda graph: self._follow(graph, watchers),
                fail_fast=self.config.fail_fast,
            )
            return local

    def _follow(self, graph: Graph, watchers: list[Watcher]) -> None:
        assert self._results is not None
        self.graph.follow(graph, self._results.outputs.get)
        for watcher in list(watchers):
            try:
                watcher(graph)
            except Exception:
                logger.exception("A watcher of %r failed; it is told no more.", self.spec)
                watchers.remove(watcher)

    def _body(self, step: FlowStep, exit_stack: ExitStack, elsewhere: ColonySteps | None) -> Body:
        definition = step.definition
        condition = None if definition.condition is None else lambda: not definition.skip()
        function = self._bound(step)
        if definition.remote is not None:
            remote = RemoteStep(step, definition.remote, function, self.spec.client)
            exit_stack.callback(remote.release)
            return Body(remote.ask, "async", self._inputs(step), condition)
        place = "async" if definition.is_async else definition.runs_in
        arguments = self._inputs(step) if step.takes_inputs else lambda inputs: []
        if elsewhere is not None:
            function, place = elsewhere.body(step.name, function, definition.executortype), "async"
        return Body(function, place, arguments, condition)

    def _bound(self, step: FlowStep) -> Callable[..., Any]:
        """A method with this flow as its ``self``; a function as it is."""
        function: Callable[..., Any] = step.step_function
        return MethodType(function, self.spec) if step.is_method else function

    def _inputs(self, step: FlowStep) -> Callable[[list[Any]], list[Any]]:
        """What a step makes of what the engine gives it."""
        if not step.predecessors:
            return lambda inputs: [self.spec.input]
        if not step.definition.join:
            return list
        lists = [before.expanded or before.definition.foreach for before in step.predecessors]

        def joined(inputs: list[Any]) -> list[Any]:
            one: list[Any] = []
            for is_list, value in zip(lists, inputs, strict=True):
                one.extend(value if is_list and value is not None else [value])
            return [one]

        return joined

    def _judge(self, end: Graph, local: LocalRun) -> None:
        if end.state is GraphState.SUCCESS:
            return
        self.fail = True
        if end.state is GraphState.CANCELLED and not local.failed_fast:
            self.fail_reason = "cancelled"
            raise WorkflowCancelledError(f"Flow {self.spec.name} was cancelled.")
        blamed = end.head.blame
        child = parse_child(blamed)
        step, node = (blamed, "") if child is None else (child[0], f" (node {child[0]}_{child[1]})")
        self.fail_reason = f"Step {step} failed: {end.statuses[blamed].reason}{node}"
        raise WorkflowFailedError(f"Flow failed: {self.fail_reason}") from local.errors.get(blamed)
