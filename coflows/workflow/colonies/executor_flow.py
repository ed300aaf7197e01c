"""An executor as a flow: a parallel endpoint, each message of which is an attempt at a step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from coflows.errors import AccessDeniedError, SerializationError, WorkflowError
from coflows.flows.flow import AtomicFlow
from coflows.model.messages import FlowMessage

if TYPE_CHECKING:
    from coflows.workflow.colonies.executor import Executor


class ExecutorFlow(AtomicFlow):
    """Does what the colony that its worker's Executor works for tells it, and nobody else."""

    default_config: ClassVar[dict[str, Any]] = {"name": "Executor", "description": "Runs steps of workflows."}

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        """Run a step; or stop one, or forget some."""
        turn = self._running("an executor")
        executor: Executor | None = turn.resources.get("executor")
        if executor is None:
            raise WorkflowError(f"The worker of {turn.endpoint} is no executor.", hint="Start an Executor.")
        if input_message.sender != executor.owner:
            raise AccessDeniedError("This executor works for another user's colony.")
        data = input_message.data
        match data.get("ask"):
            case "step":
                return executor.perform(input_message)
            case "stop":
                turn.leave_no_record()
                executor.note_stop(str(data.get("message")))
            case "forget":
                turn.leave_no_record()
                executor.forget([str(one) for one in data.get("messages", [])])
            case _:
                raise SerializationError("An executor is told to step, stop or forget.")
        return None
