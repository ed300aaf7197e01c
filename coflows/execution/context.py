"""Managed flows of one process: registered, connected, run in order, awaited and failed together."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import traceback
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any, ClassVar

from coflows.errors import CoflowsError, FlowError, FlowTimeoutError
from coflows.execution.dependencies import Change, Dependencies, DependencyType
from coflows.execution.flow_status import FlowResult, FlowStatus, now
from coflows.execution.pool_manager import ProcessPoolManager
from coflows.execution.process_flow import ProcessFlow
from coflows.execution.results import ResultsManager
from coflows.execution.settling import settled

logger = logging.getLogger(__name__)


class FlowContext:
    """Flows, what they depend on, and the pools and results that they share. Thread-safe, and not bound to one event
    loop; no lock is held while anything waits or runs. There may be several; ``get_instance`` is for programs that
    want one."""

    _instance: ClassVar[FlowContext | None] = None

    def __init__(
        self, *, pool_manager: ProcessPoolManager | None = None, results_manager: ResultsManager | None = None
    ) -> None:
        self.pool_manager = pool_manager or ProcessPoolManager()
        self.results_manager = results_manager or ResultsManager()
        self._flows: dict[str, ProcessFlow] = {}
        self._dependencies = Dependencies()
        self._wanted: dict[str, tuple[asyncio.AbstractEventLoop, dict[str, Any]]] = {}
        self._lock = threading.Lock()

    @classmethod
    def get_instance(cls) -> FlowContext:
        """The context that all callers share, made when it is first asked for, and anew after its ``cleanup``."""
        if FlowContext._instance is None:
            FlowContext._instance = cls()
        return FlowContext._instance

    # -- what there is -----------------------------------------------------------------------------------------

    def register_flow(self, flow: ProcessFlow) -> None:
        """Take a flow in; raises FlowError when there is one of that id."""
        with self._lock:
            if flow.process_id in self._flows:
                raise FlowError(f"Flow with id {flow.process_id} already registered", hint="Give it another id.")
            if flow.context is not None:
                raise FlowError(f"Flow {flow.process_id} belongs to another context", hint="Make a new one of it.")
            flow.context = self
            self._flows[flow.process_id] = flow
            self._dependencies.add(flow.process_id, flow.config.retries)
        if flow.status.ended:
            self.told(flow.process_id, flow.status)

    def register_dependency(
        self, parent_id: str, child_id: str, kind: DependencyType = DependencyType.REQUIRED
    ) -> None:
        """``child_id`` runs after ``parent_id``, on its output; if the parent fails and is REQUIRED, so does the child.
        Raises FlowError for an unknown flow, for a cycle, and for a child that has begun."""
        with self._lock:
            self._dependencies.connect(parent_id, child_id, DependencyType(kind))

    def dependencies_of(self, process_id: str) -> dict[str, DependencyType]:
        """What a flow depends on."""
        with self._lock:
            return self._dependencies.needs(process_id)

    def has_cycle(self, start_id: str) -> bool:
        """Whether a cycle can be reached from the flow: never, for ``register_dependency`` makes none."""
        with self._lock:
            return self._dependencies.in_cycle(start_id)

    def get_flow(self, process_id: str) -> ProcessFlow | None:
        """The flow of that id."""
        return self._flows.get(process_id)

    # -- run ---------------------------------------------------------------------------------------------------

    async def execute(self, process_id: str, input_data: dict[str, Any] | None = None) -> FlowResult:
        """See ProcessFlow.execute. Raises FlowError for an unknown flow."""
        flow = self._known(process_id)
        try:
            self._want([process_id], input_data)
            await settled(flow.ended)
        except asyncio.CancelledError:
            await self.fail_flow(process_id, f"Flow {process_id} was cancelled")
            raise
        assert flow.result is not None
        return flow.result

    async def run(
        self, input_data: dict[str, Any] | None = None, timeout: float | None = None
    ) -> dict[str, FlowResult]:
        """Run all flows that have not ended, and give the results of all, by id. Raises FlowTimeoutError after
        ``timeout`` seconds, and then the flows go on."""
        flows = dict(self._flows)
        self._want(flows, input_data)
        await self.wait_for_flows(set(flows), timeout)
        return {process_id: flow.result for process_id, flow in flows.items() if flow.result is not None}

    async def wait_for_flows(self, flow_ids: Iterable[str], timeout: float | None = None) -> None:
        """Wait until the flows have ended, well or not; who waits goes on at once. Raises FlowError for an unknown
        flow, and after ``timeout`` seconds FlowTimeoutError, which names those that have not ended."""
        flows = [self._known(process_id) for process_id in sorted(flow_ids)]
        deadline = None if timeout is None else time.monotonic() + timeout
        for flow in flows:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not await settled(flow.ended, left):
                late = ", ".join(flow.process_id for flow in flows if not flow.ended.done())
                raise FlowTimeoutError(f"Timeout waiting for flows: {late}")

    async def fail_flow(self, process_id: str, reason: str) -> None:
        """Fail a flow that has not ended, and all that require it; if it runs, it is stopped."""
        if process_id in self._flows:
            await self._off_loop(process_id, FlowStatus.FAILED, error=reason)
            await self.pool_manager.cancel_task(process_id)

    async def handle_flow_failure(self, process_id: str) -> None:
        """Fail all that require a flow, at any distance; and the flow itself, when it has not ended. ``fail_flow`` and
        flows that fail do this by themselves."""
        await self.fail_flow(process_id, f"Flow {process_id} failed")

    def told(self, process_id: str, status: FlowStatus, error: str = "It was set to failed") -> None:
        """The flow has ended elsewhere."""
        self._conclude(process_id, status, error=error if status is FlowStatus.FAILED else None)

    def cleanup(self) -> None:
        """Stop what runs, fail what has not ended, and forget all flows. The context may be used again."""
        with self._lock:
            flows, self._flows = self._flows, {}
            self._dependencies = Dependencies()
            self._wanted.clear()
        for flow in flows.values():
            if not flow.ended.done():
                error = "Its context was cleaned up"
                flow.result = FlowResult(flow.process_id, FlowStatus.FAILED, error=error)
                flow.move(FlowStatus.FAILED)
        self.pool_manager.shutdown()
        self.pool_manager = self.pool_manager.renewed()
        self.results_manager.cleanup()
        if FlowContext._instance is self:
            FlowContext._instance = None

    # ----------------------------------------------------------------------------------------------------------

    def _known(self, process_id: str) -> ProcessFlow:
        flow = self._flows.get(process_id)
        if flow is None:
            raise FlowError(f"Flow {process_id} not found", hint="Register it first.")
        return flow

    def _want(self, flows: Iterable[str], input_data: dict[str, Any] | None) -> None:
        """Run the flows, and what they depend on, as soon as they are ready."""
        wish = (asyncio.get_running_loop(), dict(input_data or {}))
        with self._lock:
            change = self._dependencies.refresh()
            wanted = dict.fromkeys(one for flow in flows for one in self._dependencies.open_ancestors(flow))
            for process_id in wanted:
                self._wanted.setdefault(process_id, wish)
            change.ready = [one for one in wanted if self._dependencies.may_begin(one)]
        self._apply(change)

    def _apply(self, change: Change) -> None:
        """Fail what fails, begin what is ready and wanted."""
        for process_id, culprit in change.failed:
            flow = self._flows.get(process_id)
            if flow is not None:
                error = f"Required dependency {culprit} failed"
                self._end(flow, self._kept(FlowResult(process_id, FlowStatus.FAILED, error=error)))
        for process_id in change.ready:
            with self._lock:
                wish, flow = self._wanted.get(process_id), self._flows.get(process_id)
                if wish is None or flow is None or not self._dependencies.may_begin(process_id):
                    continue
                self._dependencies.begin(process_id)
            attempt = self._attempt(flow, wish[1])
            try:
                asyncio.run_coroutine_threadsafe(attempt, wish[0])
            except RuntimeError:
                attempt.close()
                self.told(process_id, FlowStatus.FAILED, "The event loop that asked for it is closed")

    async def _attempt(self, flow: ProcessFlow, input_data: dict[str, Any]) -> None:
        process_id, config, begun = flow.process_id, flow.config, now()
        if flow.ended.done():
            return  # It was failed before it began.
        flow.move(FlowStatus.RUNNING)
        given = dict(input_data)
        for parent_id in self.dependencies_of(process_id):
            parent = self._flows.get(parent_id)
            if parent is not None and parent.result is not None and parent.status is FlowStatus.COMPLETED:
                given[parent_id] = parent.result.output
        try:
            output = await self.pool_manager.submit_task(
                process_id, config.flow_type, flow.processor, given, config.timeout
            )
        except asyncio.CancelledError:
            error = f"Flow {process_id} was cancelled"
            await self._off_loop(process_id, FlowStatus.FAILED, error=error, begun=begun)
        except Exception as error:
            text, trace = str(error) or repr(error), traceback.format_exc()
            logger.info("Flow %s failed: %s", process_id, text)
            await self._off_loop(process_id, FlowStatus.FAILED, error=text, trace=trace, begun=begun, retry=True)
        else:
            await self._off_loop(process_id, FlowStatus.COMPLETED, output=output, begun=begun)

    async def _off_loop(self, process_id: str, status: FlowStatus, **more: Any) -> None:
        """``_conclude``, in a thread when that writes to a disk."""
        if self.results_manager.durable:
            await asyncio.shield(asyncio.to_thread(self._conclude, process_id, status, **more))
        else:
            self._conclude(process_id, status, **more)

    def _conclude(
        self,
        process_id: str,
        status: FlowStatus,
        *,
        output: Any = None,
        error: str | None = None,
        trace: str | None = None,
        begun: datetime | None = None,
        retry: bool = False,
    ) -> None:
        """An attempt is over, and with it the flow, unless it is to be tried again."""
        flow = self._flows.get(process_id)
        if flow is None or flow.ended.done():
            return
        ended = now()
        result = FlowResult(process_id, status, output, error, trace, begun or ended, ended)
        if status is FlowStatus.COMPLETED:
            result = self._kept(result)  # Before others begin on it.
        with self._lock:
            if result.status is FlowStatus.COMPLETED:
                change = self._dependencies.succeed(process_id)
            else:
                change = self._dependencies.fail(process_id, result.error or "", retry=retry)
        if process_id in change.ready:
            flow.move(FlowStatus.PENDING)
        else:
            self._end(flow, result if status is FlowStatus.COMPLETED else self._kept(result))
        self._apply(change)

    def _kept(self, result: FlowResult) -> FlowResult:
        """The result, or that it could not be kept."""
        try:
            self.results_manager.save(result.process_id, result)
        except CoflowsError as problem:
            logger.exception("The result of flow %s could not be kept.", result.process_id)
            if result.status is FlowStatus.COMPLETED:
                return replace(result, status=FlowStatus.FAILED, error=str(problem))
        return result

    def _end(self, flow: ProcessFlow, result: FlowResult) -> None:
        """The flow is over: who waits goes on."""
        flow.result = result
        flow.move(result.status)
        self._wanted.pop(flow.process_id, None)
