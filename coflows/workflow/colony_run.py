"""A run of a FlowSpec on a colony's executors, as the program sees it that submitted it, or asks for it later."""

from __future__ import annotations

import logging
from collections.abc import Callable

from coflows.client import Client
from coflows.errors import CoflowsError, WorkflowError
from coflows.workflow.colonies.colonies import Colonies
from coflows.workflow.colonies.following import Following
from coflows.workflow.colonies.function_spec import Workflow
from coflows.workflow.graph.events import Submitted
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.graph.stepping import step
from coflows.workflow.graph.value import Graph
from coflows.workflow.local.outputs import Outputs

logger = logging.getLogger(__name__)


class ColonyRun:
    """Submitted when it is made: under a ``run_id``, the run that is there or a new one. ``outputs`` has what its
    processes gave, as far as it was told of them. ``cancel`` may be called from another thread."""

    def __init__(self, cl: Client, workflow: Workflow, owner: str | None, run_id: str | None) -> None:
        self.outputs = Outputs()
        self.graph, _ = step(Graph(), Submitted(tuple(spec.process() for spec in workflow.functionspecs)))
        self._colonies = Colonies(cl, owner)
        self._kept = run_id is not None
        self.processgraphid = self._colonies.begin(workflow, run_id)

    def follow(self, watch: Callable[[Graph], None], *, live: bool) -> Graph:
        """Wait for the end, and give the graph as it is then. ``watch`` is called with it at the end, or with ``live``
        whenever processes have ended. A run without ``run_id`` is removed then, and cancelled when the waiting is
        interrupted."""
        try:
            self._follow(watch, live=live)
        except BaseException:
            if not self._kept:
                self.cancel()
            raise
        if not self._kept:
            try:
                self._colonies.remove(self.processgraphid)
            except CoflowsError as error:
                logger.warning("Workflow %s was not removed: %s", self.processgraphid, error)
        return self.graph

    def cancel(self) -> None:
        """Cancel it."""
        self._colonies.cancel(self.processgraphid)

    def _follow(self, watch: Callable[[Graph], None], *, live: bool) -> None:
        following = Following(full=True)
        if live:
            watch(self.graph)
        self._colonies.ask_following(self.processgraphid, following, "get" if live else "wait", None)
        missing = [name for name in self.graph.specs if name not in following]
        if missing:
            raise WorkflowError(
                f"Run {self.processgraphid} has no step {missing[0]}: its run_id is another flow's.",
                hint="Choose another run_id, or remove that run with Colonies(cl).remove(...).",
            )
        while True:
            self.graph = following.advance(self.graph)
            statuses = self.graph.delta.statuses.items()
            new = [name for name, status in statuses if status.state is ProcessState.SUCCESS]
            for name, output in self._colonies.get_outputs(self.processgraphid, new).items():
                self.outputs[name] = output
            watch(self.graph)
            if following.ended:
                return
            self._colonies.ask_following(self.processgraphid, following, "progress", None)
