"""A managed flow: one function, how it is run, and where it is."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from coflows.errors import FlowError
from coflows.execution.dependencies import DependencyType
from coflows.execution.flow_config import FlowConfig
from coflows.execution.flow_status import FlowResult, FlowStatus

if TYPE_CHECKING:
    from coflows.execution.context import FlowContext


class ProcessFlow:
    """``processor`` is called with a dict: the input, and under the id of each flow that this one depends on, that
    flow's output (without an optional one that failed). What it returns is the flow's output.

    ``process_id`` is made up when it is not given. A flow belongs to the context that it is registered with.
    """

    def __init__(
        self,
        processor: Callable[[dict[str, Any]], Any],
        config: FlowConfig | None = None,
        process_id: str | None = None,
    ) -> None:
        self.processor = processor
        self.config = config or FlowConfig(name=getattr(processor, "__name__", ""))
        self.process_id = process_id or secrets.token_hex(8)
        self.context: FlowContext | None = None
        self.result: FlowResult | None = None
        """What came of it, once it has ended."""
        self.ended: Future[None] = Future()
        """Done when it has ended; for the context."""
        self._status = FlowStatus.PENDING

    @property
    def status(self) -> FlowStatus:
        """Where it is. To set it to COMPLETED or FAILED tells that it was done elsewhere: who waits goes on."""
        return self._status

    @status.setter
    def status(self, status: FlowStatus) -> None:
        status = FlowStatus(status)
        if self.context is not None and status.ended:
            self.context.told(self.process_id, status)
        else:
            self.move(status)

    def move(self, status: FlowStatus) -> None:
        """Be at ``status``; for the context. What has ended stays so."""
        if self.ended.done():
            return
        self._status = status
        if status.ended:
            self.ended.set_result(None)

    async def execute(self, input_data: dict[str, Any] | None = None) -> FlowResult:
        """Run it after what it depends on, which is run too where it has not been, with the same input. Gives the
        result, also of a flow that failed, and at once when it has ended already. If the caller is cancelled, so is the
        flow. A flow that is registered nowhere is run in ``FlowContext.get_instance()``."""
        if self.context is None:
            from coflows.execution.context import FlowContext  # The two know each other.

            FlowContext.get_instance().register_flow(self)
        assert self.context is not None
        return await self.context.execute(self.process_id, input_data)

    def add_dependency(self, parent: ProcessFlow | str, kind: DependencyType = DependencyType.REQUIRED) -> None:
        """Depend on another flow of the same context; see FlowContext.register_dependency."""
        if self.context is None:
            raise FlowError(f"Flow {self.process_id} is not registered", hint="Call context.register_flow(flow) first.")
        parent_id = parent if isinstance(parent, str) else parent.process_id
        self.context.register_dependency(parent_id, self.process_id, kind)

    def get_dependencies(self, kind: DependencyType | None = None) -> set[str]:
        """The ids of the flows that it depends on, all or those of one kind."""
        needs = {} if self.context is None else self.context.dependencies_of(self.process_id)
        return {parent for parent, its_kind in needs.items() if kind in (None, its_kind)}

    def __repr__(self) -> str:
        return f"<ProcessFlow {self.process_id} {self._status}>"
