"""FlowSpec: a workflow as a class whose methods are its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from coflows.client import Client
from coflows.errors import WorkflowError
from coflows.workflow.colonies.colonies import Colonies
from coflows.workflow.colony_run import ColonyRun
from coflows.workflow.colony_steps import workflow_of
from coflows.workflow.configuration import Configuration
from coflows.workflow.decorators import definition_of
from coflows.workflow.flow_graph import FlowGraph
from coflows.workflow.runner import Runner
from coflows.workflow.watchers import Watcher


class FlowSpec:
    """A workflow. Its steps are what ``@step`` stands above: methods, functions without ``self``, ``async def``, and
    what it inherits.

    When no step has ``@needs``, the steps run in the order written, each on what the one before gave. As soon as one
    has, those without are start steps, and get ``input``. Making a flow checks it (WorkflowInvalidError names the
    step); one object runs once at a time. In a notebook it shows itself.
    """

    def __init__(
        self, name: str, input: Any = None, conf: Configuration | None = None, client: Client | None = None
    ) -> None:
        self.name = name
        self.input = input
        self.config = conf or Configuration()
        self.client = client
        """As whom ``@remote`` steps ask."""
        self.graph = FlowGraph(self)
        self.runner = Runner(self, self.graph, self.config)

    def run(
        self,
        *,
        progress: bool = False,
        watchers: Sequence[Watcher] = (),
        cl: Client | None = None,
        colonyname: str = "",
        executortype: str = "",
        owner: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Run to the end, here. ``progress`` shows on the terminal how it goes; ``watchers`` are told too.

        With ``cl`` it runs on executors of a colony (of ``owner``'s, or this user's own), of the type that ``@step``
        says or of ``executortype``; the executors trust this user. It is a workflow that is submitted there: whatever
        becomes of this process, it goes on. With a ``run_id`` of one's choice it is submitted once, and kept until
        ``Colonies.remove``: a program that is started again and runs it under the same ``run_id`` waits for the same
        run, or has its results at once. Without, it is removed when it is over, and cancelled when the waiting is
        interrupted. A flow is pickled with its steps and conditions; what they pass on is what msgpack holds. Served
        flows are asked by the executors' users.

        Raises WorkflowFailedError (a RuntimeError) that names the step, with what it raised as the cause, when all
        that does not need it has run too; WorkflowCancelledError after ``cancel``.
        """
        if cl is None:
            if colonyname or executortype or owner or run_id:
                raise WorkflowError("On executors a flow runs with a client.", hint="Give run(cl=...).")
            self.runner.run(progress=progress, watchers=watchers)
            return
        if not colonyname:
            raise WorkflowError(
                "Nothing says in which colony the flow runs.", hint='Give run(cl=..., colonyname="...").'
            )
        there = partial(ColonyRun, cl, workflow_of(self, self.graph.steps, colonyname, executortype), owner, run_id)
        self.runner.run_there(there, progress=progress, watchers=watchers)

    def submit(
        self, cl: Client, colonyname: str, executortype: str = "", owner: str | None = None, run_id: str | None = None
    ) -> str:
        """Submit it as ``run`` does with ``cl``, and wait for nothing: gives the id of its process graph, for
        ``Colonies(cl, owner)``. Its results come to a flow that is run under the same ``run_id``."""
        return Colonies(cl, owner).begin(workflow_of(self, self.graph.steps, colonyname, executortype), run_id)

    def cancel(self) -> None:
        """Stop a run that goes on in another thread. What runs in a thread is not stopped, but no longer heard."""
        self.runner.cancel()

    def get_result(self, step: Callable[..., Any] | str) -> Any:
        """What a step gave: one value, or the list of them where the step expanded; None while it is not done. Raises
        WorkflowInvalidError for what is no step of this flow."""
        if isinstance(step, str):
            return self.runner.result(self.graph.step_named(step))
        definition = definition_of(step, type(self).__name__)
        return self.runner.result(self.graph.get_step(definition))

    def __getstate__(self) -> dict[str, Any]:
        """What a step in another process knows of the flow: its name, its input, what it set itself."""
        here = ("graph", "runner", "client")
        return {name: value for name, value in self.__dict__.items() if name not in here}

    def _repr_html_(self) -> str:
        return self.graph._repr_html_()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"
