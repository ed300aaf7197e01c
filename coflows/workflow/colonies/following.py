"""What somebody knows of a run from afar: put together of answers, each of which tells what is new."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coflows.errors import SerializationError
from coflows.workflow.colonies.process_graph import ProcessGraph
from coflows.workflow.graph import Delta, Graph
from coflows.workflow.graph.process import Status
from coflows.workflow.graph.states import ENDED, GRAPH_ENDED, Awaits, GraphState, ProcessState
from coflows.workflow.graph.value import Head


class Following:
    """Not thread-safe. Safe on data from other users."""

    def __init__(self, *, full: bool = False) -> None:
        self._full = full
        self._seen: Any = None
        self._rows: dict[str, list[Any]] = {}
        self._new: dict[str, Status] = {}
        self._last: Mapping[str, Any] = {}

    def question(self, ask: str, **more: Any) -> dict[str, Any]:
        """What to ask next."""
        return {"ask": ask, "seen": self._seen, "full": self._full, **more}

    def take(self, answer: Mapping[str, Any]) -> bool:
        """Add what is new; whether there is more at once. Raises SerializationError."""
        self._last, self._seen = answer, answer.get("seen")
        try:
            for row in answer["rows"]:
                name = str(row[0])
                self._rows[name] = [*row[:5], int(row[5])]
                if self._full:
                    seq, state, awaits, *rest = row[6]
                    self._new[name] = Status(seq, ProcessState(state), Awaits(awaits), *rest)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise SerializationError(f"The processes of a workflow are malformed: {error!r}.") from error
        return answer.get("more") is True

    def __contains__(self, process: str) -> bool:
        """Whether the run has such a process."""
        return process in self._rows

    @property
    def done(self) -> int:
        """How many processes are over."""
        return sum(row[1] in ENDED for row in self._rows.values())

    @property
    def ended(self) -> bool:
        """Whether the run is over."""
        return self._last.get("state") in GRAPH_ENDED

    def processgraph(self) -> ProcessGraph:
        """The run as it was last."""
        rows = sorted(self._rows.values(), key=lambda row: row[5])
        return ProcessGraph.from_dict({**self._last, "rows": rows})

    def advance(self, graph: Graph) -> Graph:
        """The engine's graph, of the same processes, as it is now; its ``delta`` is what is new since this was asked
        last."""
        new, self._new = self._new, {}
        try:
            state, *rest = self._last["head"]
            head = Head(GraphState(state), *rest)
        except (KeyError, TypeError, ValueError) as error:
            raise SerializationError(f"The head of a workflow is malformed: {error!r}.") from error
        statuses = graph.statuses.update(new)
        return Graph(head, graph.specs, statuses, graph.needs, graph.dependents, Delta(head, statuses=new))
