"""FlowSpec: a workflow as a class whose methods are its steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from coflows.client import Client
from coflows.workflow.colony_steps import ColonySteps
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
    ) -> None:
        """Run to the end, here. ``progress`` shows on the terminal how it goes; ``watchers`` are told too.

        With ``cl`` the steps run on executors of a colony (of ``owner``'s, or this user's own), of the type that
        ``@step`` says or of ``executortype``; the executors trust this user. Which step is next is decided here all the
        same: the run ends with this process. A flow is pickled with its steps; what they pass on is what msgpack holds.

        Raises WorkflowFailedError (a RuntimeError) that names the step, with what it raised as the cause, when all
        that does not need it has run too; WorkflowCancelledError after ``cancel``.
        """
        steps = None if cl is None else ColonySteps(cl, colonyname, executortype, owner)
        self.runner.run(progress=progress, watchers=watchers, elsewhere=steps)

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
