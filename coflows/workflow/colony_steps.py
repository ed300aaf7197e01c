"""Steps of a FlowSpec that run on the executors of a colony."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from coflows.client import Client
from coflows.errors import WorkflowError, WorkflowFailedError
from coflows.workflow.colonies.colonies import Colonies
from coflows.workflow.colonies.function_spec import Workflow, func_spec


class ColonySteps:
    """Each attempt at a step is a workflow of one process, submitted to the colony and removed when it is over. No
    thread waits for it; one that is cancelled cancels its process."""

    def __init__(self, cl: Client, colonyname: str, executortype: str, owner: str | None) -> None:
        self._colonies = Colonies(cl, owner)
        self._colony = colonyname
        self._executortype = executortype

    def body(self, name: str, function: Callable[..., Any], executortype: str) -> Callable[..., Any]:
        """What runs in the place of ``function``: it is pickled, its inputs and output are what msgpack holds. Raises
        WorkflowError when nobody said which executors take the step."""
        kind = executortype or self._executortype
        if not kind:
            raise WorkflowError(
                f"Nothing says which executors run step {name}.",
                hint='Give @step(executortype="...") or run(cl=..., executortype="...").',
            )

        async def run(*inputs: Any) -> Any:
            workflow = Workflow(self._colony)
            spec = func_spec(function, inputs, None, self._colony, kind, nodename=name)
            workflow.functionspecs.append(spec)
            end, process = await self._colonies.run_async(workflow)
            if end.state != "SUCCESS":
                reason = process.reason or str(end.state)
                raise WorkflowFailedError(reason)
            return process.output

        return run
