"""The process graph of a run: kept in its instance's records, stepped, and what it asks for done."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from coflows.flows.flow import AtomicFlow
from coflows.flows.runtime import FlowRuntime
from coflows.model.address import InstanceAddress
from coflows.model.messages import FlowMessage
from coflows.workflow.colonies.backlog import Backlog
from coflows.workflow.colonies.colony_flow import registry_of
from coflows.workflow.colonies.places import GraphId, colony_address
from coflows.workflow.colonies.registry import Crew, Registry
from coflows.workflow.graph import Graph, inputs_of, outstanding, step
from coflows.workflow.graph.commands import ClearTimer, Command, End, SetTimer, Start, Stop, Timer
from coflows.workflow.graph.events import Event
from coflows.workflow.graph.records import changes, load
from coflows.workflow.graph.states import GRAPH_ENDED

GRAPH_TABLES = ("h", "p:", "s:", "n:", "d:")


class GraphFlow(AtomicFlow):
    """Its records, besides the graph's own (see ``graph.records``):

    m                          who submitted it, and when
    f:{process}                its function spec
    o:{process}                its output
    a:{process}:{attempt}      who was given an attempt: [user, address of its control, message id]
    t:{process}:{attempt}:{kind}   the id of a timer
    w:{message_id}             a message that waits for the end, or for progress
    q:{message_id}             a question that came before the graph did
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._graph: Graph | None = None
        self._working: dict[str, str] = {}
        """Which user has a process that was given out."""
        self._load: Counter[tuple[str, str]] = Counter()
        """How many attempts of an executor type a user has."""
        self._backlog = Backlog()
        self._wanted: set[str] = set()
        """Executor types of which the colony was asked to tell when there are more."""
        self._waiters: dict[str, int | None] = {}
        """The records of those that wait, and how many ended processes each has seen; None waits for the end."""

    # -- the graph ---------------------------------------------------------------------------------------------

    @property
    def _now(self) -> Graph:
        assert self._graph is not None
        return self._graph

    @property
    def _done(self) -> int:
        return len(self._now) - self._now.head.open

    def _resume(self) -> None:
        """After the flow was made anew: read the graph, and who works on it."""
        if self._graph is not None:
            return
        self._graph = load([item for table in GRAPH_TABLES for item in self.records.scan(table).items()])
        self._waiters = {name: seen for name, (_, seen) in self.records.scan("w:").items()}
        for command in outstanding(self._graph):
            if isinstance(command, Start) and self.records.get(f"a:{command.process}:{command.attempt}") is None:
                self._backlog.put(command)
        for name, status in self._graph.statuses.items():
            given = self.records.get(f"a:{name}:{status.attempt}") if status.given_out else None
            if given is not None:
                self._working[name] = given[0]
                self._load[given[0], self._now.spec(name).executortype] += 1

    def _step(self, event: Event) -> None:
        before = self._done
        self._graph, commands = step(self._now, event)
        delta = self._graph.delta
        for name, record in changes(delta).items():
            self.records[name] = record
        self._obey(commands, {self._now.spec(name).executortype for name in delta.statuses if self._let_go(name)})
        if self._waiters and self._done != before:
            self._tell_waiters()
        if not (delta.statuses or delta.specs or delta.head or commands):
            self._turn.leave_no_record()

    def _let_go(self, name: str) -> bool:
        """Whether somebody had a process and, should it be over or tried again, has it no more."""
        status = self._now.statuses[name]
        if name not in self._working:
            return False
        if status.given_out and self.records.get(f"a:{name}:{status.attempt}") is not None:
            return False
        self._load[self._working.pop(name), self._now.spec(name).executortype] -= 1
        return True

    def _obey(self, commands: tuple[Command, ...], free: set[str]) -> None:
        """``free``: the executor types of which somebody may have room again."""
        for command in commands:
            match command:
                case Start():
                    self._backlog.put(command)
                    free.add(command.executortype)
                case Stop(process, attempt):
                    self._stop(process, attempt)
                case SetTimer(timer, due):
                    data = {"ask": "timer", "process": timer.process, "attempt": timer.attempt, "kind": timer.kind}
                    self.records[_timer_name(timer)] = self.send_later(due - time.time(), data)
                case ClearTimer(timer):
                    set_before = self.records.get(_timer_name(timer))
                    if set_before is not None:
                        self.cancel_later(set_before)
                        del self.records[_timer_name(timer)]
                case End():
                    self._tell_colony({"ask": "ended"})
        for kind in sorted(free):
            self._give_out(kind)

    def _give_out(self, kind: str) -> None:
        """As many attempts as the executors of a type have room for; the others wait here, so that one that is more
        urgent and comes later overtakes them."""
        if not self._backlog.waits(kind):
            return
        crews = self._registry.crews(kind)
        while self._backlog.waits(kind):
            room = {user: self._load[user, kind] / crew.size for user, crew in crews.items()}
            user = min(room, key=lambda one: (room[one], one), default=None)
            if user is None or room[user] >= 1:
                if kind not in self._wanted:
                    self._wanted.add(kind)
                    seen = sum(crew.size for crew in crews.values())
                    self._tell_colony({"ask": "wanted", "executortype": kind, "seen": seen})
                return
            start = self._backlog.take(kind)
            status = self._now.statuses[start.process]
            if status.attempt == start.attempt and status.given_out:
                self._give(start, user, crews[user])

    def _give(self, start: Start, user: str, crew: Crew) -> None:
        name, attempt = start.process, start.attempt
        data = {
            "ask": "step",
            "colony": self._id.colony,
            "run": self._turn.flow_id,
            "process": name,
            "attempt": attempt,
            "initiator": self.records.get("m")[0],
            "spec": self.records.get(f"f:{name}"),
            "inputs": self._inputs(name),
        }
        there = self._turn.instance(crew.address)
        message = there.package_input_message(data)
        there.get_reply(message)
        self.records[f"a:{name}:{attempt}"] = [user, crew.control.to_dict(), message.message_id]
        self._working[name] = user
        self._load[user, start.executortype] += 1

    def _inputs(self, name: str) -> list[Any]:
        needed = inputs_of(self._now, name)
        outputs = self.records.get_many([f"o:{one.process}" for one in needed])
        return [outputs.get(f"o:{one.process}", [False, None]) if one.delivered else [False, None] for one in needed]

    def _stop(self, process: str, attempt: int) -> None:
        given = self.records.get(f"a:{process}:{attempt}")
        if given is not None:
            self._tell(InstanceAddress.from_dict(given[1]), {"ask": "stop", "message": given[2]})

    def _tell_waiters(self) -> None:
        over = self._now.state in GRAPH_ENDED
        told = [name for name, seen in self._waiters.items() if over or seen is not None]
        for name, (message, _) in self.records.get_many(told).items():
            self.send_message(self.package_output_message(FlowMessage.from_dict(message), self._view()))
            del self.records[name]
            del self._waiters[name]

    def _view(self) -> dict[str, Any]:
        graph, (initiator, at) = self._now, self.records.get("m", ["", 0.0])
        rows = []
        for name in graph.processes():
            status = graph.statuses[name]
            rows.append([name, status.state, graph.spec(name).executortype, status.started_at, status.ended_at])
        head = graph.head
        reason = f"Step {head.blame} failed: {graph.statuses[head.blame].reason}" if head.blame else ""
        return {
            "processgraphid": str(self._id),
            "state": head.state,
            "initiator": initiator,
            "submitted_at": at,
            "started_at": head.started_at,
            "ended_at": head.ended_at,
            "reason": reason,
            "rows": rows,
        }

    # ----------------------------------------------------------------------------------------------------------

    @property
    def _turn(self) -> FlowRuntime:
        return self._running("a run")

    @property
    def _id(self) -> GraphId:
        return GraphId(self._turn.endpoint.removeprefix("colony.").removesuffix(".runs"), self._turn.flow_id)

    @property
    def _registry(self) -> Registry:
        return registry_of(self._turn, colony_address(self._turn.user_id, self._id.colony).flow_id)

    def _tell_colony(self, data: dict[str, Any]) -> None:
        self._tell(colony_address(self._turn.user_id, self._id.colony), {**data, "run": self._id.flow_id})

    def _tell(self, address: InstanceAddress, data: dict[str, Any]) -> None:
        there = self._turn.instance(address)
        there.send_message(there.package_input_message(data))


def _timer_name(timer: Timer) -> str:
    return f"t:{timer.process}:{timer.attempt}:{timer.kind}"
