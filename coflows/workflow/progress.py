"""How a run goes, on the terminal: a bar for each step."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from coflows.workflow.graph.process import parse_child
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.graph.value import Graph

if TYPE_CHECKING:
    from rich.console import Console

    from coflows.workflow.flow_graph import FlowGraph

STYLES = {
    ProcessState.WAITING: "dim",
    ProcessState.RUNNING: "blue",
    ProcessState.SUCCESS: "green",
    ProcessState.FAILED: "red",
    ProcessState.CANCELLED: "magenta",
    ProcessState.SKIPPED: "dim",
    ProcessState.UPSTREAM_FAILED: "yellow",
}


class Progress:
    """A watcher that is a context manager: the bars are there while it is open. Rich draws them from a thread of its
    own, a few times a second; being told costs next to nothing."""

    def __init__(self, graph: FlowGraph, console: Console | None = None) -> None:
        # Rich takes long to load, and most runs show nothing.
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        text, state = TextColumn("{task.description}"), TextColumn("{task.fields[state]}")
        self._bars = Bars(text, BarColumn(), MofNCompleteColumn(), state, TimeElapsedColumn(), console=console)
        self._tasks = {
            step.name: self._bars.add_task(step.name, total=0 if step.expanded else 1, start=False, state="")
            for step in graph.steps
        }
        self._done = dict.fromkeys(self._tasks, 0)
        self._expanded = {step.name for step in graph.steps if step.expanded}

    def __call__(self, graph: Graph) -> None:
        changed = set()
        for name, status in graph.delta.statuses.items():
            child = parse_child(name)
            step = name if child is None else child[0]
            changed.add(step)
            if status.ended and (child is not None or step not in self._expanded):
                self._done[step] += 1
            if status.state is not ProcessState.WAITING:
                self._bars.start_task(self._tasks[step])
        for step in changed:
            status = graph.statuses[step]
            if status.ended:
                self._bars.stop_task(self._tasks[step])
            self._bars.update(
                self._tasks[step],
                completed=self._done[step],
                total=status.children if step in self._expanded else 1,
                state=f"[{STYLES[status.state]}]{status.state}",
            )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
