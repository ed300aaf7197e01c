"""Runs a FlowSpec: its steps as bodies of a local run, and what becomes of them as results and errors."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from coflows.errors import WorkflowCancelledError, WorkflowError, WorkflowFailedError
from coflows.pools.process_pool import ProcessPool
from coflows.workflow.colony_steps import ASKS, arguments_of, bound
from coflows.workflow.configuration import Configuration
from coflows.workflow.flow_graph import FlowGraph
from coflows.workflow.flow_step import FlowStep
from coflows.workflow.graph.process import parse_child
from coflows.workflow.graph.states import GraphState, ProcessState
from coflows.workflow.graph.value import Graph
from coflows.workflow.local.body import Body
from coflows.workflow.local.outputs import Outputs
from coflows.workflow.local.run import LocalRun
from coflows.workflow.progress import Progress
from coflows.workflow.remote_step import RemoteStep
from coflows.workflow.watchers import Watcher

if TYPE_CHECKING:
    from coflows.workflow.colony_run import ColonyRun
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
        self._runs = False
        self._cancel: Callable[[], None] | None = None
        """Cancels the run that goes on; None until there is what can be cancelled."""
        self._cancelled = False
        self._now = Graph()
        """The run as it is now."""
        self._outputs = Outputs()
        self._lock = threading.Lock()

    def run(self, *, progress: bool = False, watchers: Sequence[Watcher] = ()) -> None:
        """Run to the end, here; see ``FlowSpec.run``."""
        with self._running(progress, watchers) as (exit_stack, told):
            local = self._local(exit_stack, told)
            self._outputs = local.outputs
            self._cancellable(local.cancel)
            self._now = local.run(self.graph.processes(), self.config.max_step_inputs)
        self._judge(local.failed_fast, local.errors.get)

    def run_there(
        self, submit: Callable[[], ColonyRun], *, progress: bool = False, watchers: Sequence[Watcher] = ()
    ) -> None:
        """Run to the end on executors; see ``FlowSpec.run``."""
        with self._running(progress, watchers) as (_, told):
            run = submit()
            self._outputs = run.outputs
            self._cancellable(run.cancel)
            self._now = run.follow(lambda graph: self._follow(graph, told), live=bool(told))
        head = self._now.head
        failed = head.blame and self._now.statuses[head.blame].state is ProcessState.FAILED
        self._judge(
            bool(self.config.fail_fast and failed),
            lambda process: WorkflowFailedError(self._now.statuses[process].reason),
        )

    def cancel(self) -> None:
        """Cancel the run that goes on, if one does."""
        with self._lock:
            cancel, self._cancelled = self._cancel, True
        if cancel is not None:
            cancel()

    def result(self, step: FlowStep) -> Any:
        """What a step gave in the last run; a list where it expanded, None when it is not done."""
        if not step.done:
            return None
        if not step.expanded:
            return self._outputs.get(step.name)
        return None if step.state is ProcessState.SKIPPED else self._outputs.of_group(self._now, step.name)

    @contextmanager
    def _running(self, progress: bool, watchers: Sequence[Watcher]) -> Iterator[tuple[ExitStack, list[Watcher]]]:
        """One run, from before it began; gives what ends with it, and who is told of it."""
        with self._lock:
            if self._runs:
                raise WorkflowError(f"{self.spec!r} is running.", hint="Make another one, or wait for its end.")
            self._runs, self._cancelled = True, False
        try:
            for step in self.graph.steps:
                step.reset()
            self.fail, self.fail_reason = False, None
            with ExitStack() as exit_stack:
                told = list(watchers)
                if progress:
                    told.append(exit_stack.enter_context(Progress(self.graph)))
                yield exit_stack, told
        finally:
            with self._lock:
                self._runs, self._cancel = False, None

    def _cancellable(self, cancel: Callable[[], None]) -> None:
        with self._lock:
            self._cancel, cancelled = cancel, self._cancelled
        if cancelled:
            cancel()

    def _local(self, exit_stack: ExitStack, watchers: list[Watcher]) -> LocalRun:
        pool: list[ProcessPool] = []
        pool_lock = threading.Lock()

        def processes() -> ProcessPool:
            with pool_lock:  # Steps that end at the same time may both be followed by the first one in a process.
                if not pool:
                    pool.append(exit_stack.enter_context(ProcessPool(self.config.processes)))
                return pool[0]

        return LocalRun(
            {step.name: self._body(step, exit_stack) for step in self.graph.steps},
            threads=self.config.threads,
            processes=processes,
            process_count=self.config.processes,
            watch=lambda graph: self._follow(graph, watchers),
            fail_fast=self.config.fail_fast,
        )

    def _follow(self, graph: Graph, watchers: list[Watcher]) -> None:
        self._now = graph
        self.graph.follow(graph, self._outputs.get)
        for watcher in list(watchers):
            try:
                watcher(graph)
            except Exception:
                logger.exception("A watcher of %r failed; it is told no more.", self.spec)
                watchers.remove(watcher)

    def _body(self, step: FlowStep, exit_stack: ExitStack) -> Body:
        definition = step.definition
        condition = None if definition.condition is None else lambda: not definition.skip()
        function, arguments = bound(step, self.spec), arguments_of(step, self.spec.input)
        if definition.remote is not None:
            remote = RemoteStep(
                step.name,
                definition.remote,
                function,
                self.spec.client,
                takes_inputs=step.takes_inputs,
                fetched=partial(setattr, step, "run_id"),
            )
            exit_stack.callback(remote.release)
            return Body(remote.ask, "async", arguments, condition)
        place = "async" if definition.is_async else definition.runs_in
        return Body(function, place, arguments if step.takes_inputs else lambda inputs: [], condition)

    def _judge(self, failed_fast: bool, cause: Callable[[str], BaseException | None]) -> None:
        end = self._now
        if end.state is GraphState.SUCCESS:
            return
        self.fail = True
        if end.state is GraphState.CANCELLED and not failed_fast:
            self.fail_reason = "cancelled"
            raise WorkflowCancelledError(f"Flow {self.spec.name} was cancelled.")
        blamed = end.head.blame
        child = parse_child(blamed)
        step, node = (blamed.removesuffix(ASKS), "") if child is None else (child[0], f" (node {child[0]}_{child[1]})")
        self.fail_reason = f"Step {step} failed: {end.statuses[blamed].reason}{node}"
        raise WorkflowFailedError(f"Flow failed: {self.fail_reason}") from cause(blamed)
