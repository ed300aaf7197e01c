"""The process graph of a run: kept in its instance's records, stepped, and what it asks for done."""

from __future__ import annotations

import time
from collections import Counter, deque
from typing import Any

from coflows.errors import MessageTooLargeError, SerializationError
from coflows.flows.flow import AtomicFlow
from coflows.flows.runtime import FlowRuntime
from coflows.model.address import InstanceAddress
from coflows.model.messages import FlowMessage
from coflows.workflow.colonies.backlog import Backlog
from coflows.workflow.colonies.changes import Changes
from coflows.workflow.colonies.colony_flow import registry_of
from coflows.workflow.colonies.pace import Pace
from coflows.workflow.colonies.places import GraphId, colony_address
from coflows.workflow.colonies.registry import Crew, Registry
from coflows.workflow.colonies.run_outputs import RunOutputs
from coflows.workflow.graph import Graph, outstanding, step
from coflows.workflow.graph.commands import ClearTimer, Command, Decide, End, SetTimer, Start, Stop, Timer
from coflows.workflow.graph.events import Cancelled, Decided, Event, Failed
from coflows.workflow.graph.records import changes, load
from coflows.workflow.graph.states import GRAPH_ENDED

GRAPH_TABLES = ("h", "p:", "s:", "n:", "d:")
PAGE = 10_000
"""How many processes are told of at once."""


class GraphFlow(AtomicFlow):
    """Its records, besides the graph's own (see ``graph.records``):

    m                          who submitted it, when, and whether the first failure cancels it
    f:{process}                its function spec
    o:{process}                its output
    a:{process}:{attempt}      who was given an attempt: [user, address of its control, message id]
    t:{process}:{attempt}:{kind}   the id of a timer
    w:{message_id}             a message that waits for the end, or for progress
    q:{message_id}             a question that came before the graph did
    """

    own_chain = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._graph: Graph | None = None
        self._working: dict[str, str] = {}
        """Which user has a process that was given out."""
        self._load: Counter[tuple[str, str]] = Counter()
        """How many attempts of an executor type a user has."""
        self._backlog = Backlog()
        self._pace = Pace()
        self._next: deque[Event] = deque()
        """What has happened to the graph by what it asked for."""
        self._changes = Changes(())
        self._outputs = RunOutputs(self.records)
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
        self._changes = Changes(self._graph.processes())
        self._pace.note_specs(self._graph.specs.values())
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
        before, changed = self._done, False
        self._next.append(event)
        while self._next:
            self._graph, commands = step(self._now, self._next.popleft())
            delta = self._graph.delta
            for name, record in changes(delta).items():
                self.records[name] = record
            self._changes.note(delta.statuses)
            self._pace.note_specs(delta.specs.values())
            self._obey(commands, {self._now.spec(name).executortype for name in delta.statuses if self._let_go(name)})
            changed = changed or bool(delta.statuses or delta.specs or delta.head or commands)
            head = self._now.head
            if head.failures and self.records.get("m")[2] and not head.cancelled and head.state not in GRAPH_ENDED:
                self._next.append(Cancelled(None, time.time()))
        if self._waiters and self._done != before:
            self._tell_waiters()
        if not changed:
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
                case Decide(process):
                    condition = self._outputs.spec(process)["expansion"]["condition"]
                    self._next.append(Decided(process, bool(self._outputs.output(condition)), time.time()))
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
        crews, slack = self._registry.crews(kind), self._pace.slack(kind)
        # Many at once go in few envelopes: whose executors have enough gets more when they have half of it.
        in_need = [user for user, crew in crews.items() if self._load[user, kind] <= crew.size + slack // 2]
        while self._backlog.waits(kind):
            room = {user: self._load[user, kind] / (crews[user].size + slack) for user in in_need}
            user = min(room, key=lambda one: (room[one], one), default=None)
            if user is None or room[user] >= 1:
                if kind not in self._wanted:
                    self._wanted.add(kind)
                    seen = sum(crew.size for crew in crews.values())
                    self._tell_colony({"ask": "wanted", "executortype": kind, "seen": seen})
                return
            start = self._backlog.take(kind)
            status = self._now.statuses[start.process]
            if status.attempt != start.attempt or not status.given_out:
                continue
            try:
                self._give(start, user, crews[user])
            except (MessageTooLargeError, SerializationError) as error:
                reason = f"its inputs cannot be sent: {error.message}"
                self._next.append(Failed(start.process, start.attempt, reason, time.time(), retry=False))

    def _give(self, start: Start, user: str, crew: Crew) -> None:
        name, attempt = start.process, start.attempt
        data = {
            "ask": "step",
            "colony": self._id.colony,
            "run": self._turn.flow_id,
            "process": name,
            "attempt": attempt,
            "initiator": self.records.get("m")[0],
            "spec": self._outputs.spec(name),
            "inputs": self._outputs.inputs(self._now, name),
        }
        there = self._turn.instance(crew.address)
        message = there.package_input_message(data)
        there.get_reply(message)
        self.records[f"a:{name}:{attempt}"] = [user, crew.control.to_dict(), message.message_id]
        self._working[name] = user
        self._load[user, start.executortype] += 1

    def _stop(self, process: str, attempt: int) -> None:
        given = self.records.get(f"a:{process}:{attempt}")
        if given is not None:
            self._tell(InstanceAddress.from_dict(given[1]), {"ask": "stop", "message": given[2]})

    def _tell_waiters(self) -> None:
        over = self._now.state in GRAPH_ENDED
        told = [name for name, seen in self._waiters.items() if over or seen is not None]
        for name, (asked, _) in self.records.get_many(told).items():
            message = FlowMessage.from_dict(asked)
            self.send_message(self.package_output_message(message, self._view(message)))
            del self.records[name]
            del self._waiters[name]

    def _view(self, message: FlowMessage) -> dict[str, Any]:
        """The graph, and of its processes those that changed since ``seen``: as many as a message may hold, and
        whether there are ``more``. ``full``: with all that is known of each."""
        seen, full = message.data.get("seen"), message.data.get("full") is True
        graph, meta = self._now, self.records.get("m") or ["", 0.0, False]
        left, more = self._turn.resources["client"].settings.max_message_bytes // 2, False
        rows: list[list[Any]] = []
        for name, number in self._changes.since(seen):
            status, kind = graph.statuses[name], graph.spec(name).executortype
            row = [name, status.state, kind, status.started_at, status.ended_at, status.seq]
            row += [list(status)] if full else []
            left -= 50 + len(name) * 4 + len(kind) + full * (100 + 4 * len(status.reason) + 4 * len(status.blame))
            if rows and (left < 0 or len(rows) >= PAGE):
                more = True
                break
            rows.append(row)
            seen = number
        head = graph.head
        reason = f"Step {head.blame} failed: {graph.statuses[head.blame].reason}" if head.blame else ""
        return {
            "processgraphid": str(self._id),
            "state": head.state,
            "initiator": meta[0],
            "submitted_at": meta[1],
            "started_at": head.started_at,
            "ended_at": head.ended_at,
            "reason": reason,
            "rows": rows,
            "head": list(head),
            "seen": seen,
            "more": more,
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
