"""A run of a submitted workflow: its records are the process graph, its messages what happens to it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from coflows.errors import AccessDeniedError, SerializationError, WorkflowError
from coflows.flows.flow import AtomicFlow
from coflows.flows.runtime import FlowRuntime
from coflows.model.address import InstanceAddress
from coflows.model.messages import FlowMessage
from coflows.workflow.colonies.colony_flow import registry_of
from coflows.workflow.colonies.function_spec import read_spec, read_specs
from coflows.workflow.colonies.places import GraphId, ProcessId, colony_address
from coflows.workflow.colonies.process_graph import is_packed
from coflows.workflow.colonies.registry import Crew, Registry
from coflows.workflow.graph import Graph, inputs_of, outstanding, step
from coflows.workflow.graph.commands import ClearTimer, Command, End, SetTimer, Start, Stop, Timer, TimerKind
from coflows.workflow.graph.events import (
    Cancelled,
    ChildAdded,
    Event,
    Failed,
    Lost,
    Started,
    Submitted,
    Succeeded,
    TimerDue,
)
from coflows.workflow.graph.records import changes, load
from coflows.workflow.graph.states import GRAPH_ENDED
from coflows.workflow.pictures.picture import picture_of

GRAPH_TABLES = ("h", "p:", "s:", "n:", "d:")
GONE = ("instance_not_found", "endpoint_not_found")
"""Failures that tell of an executor that is not there any more."""


class RunFlow(AtomicFlow):
    """Its records, besides the graph's own (see ``graph.records``):

    m                          who submitted it, and when
    f:{process}                its function spec
    o:{process}                its output
    a:{process}:{attempt}      who was given an attempt: [user, address of its control, message id]
    t:{process}:{attempt}:{kind}   the id of a timer
    w:{message_id}             a message that waits for the end, or for progress
    """

    default_config: ClassVar[dict[str, Any]] = {"name": "Run", "description": "Runs a submitted workflow."}
    open_to_all = True
    takes_failures = True

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._graph: Graph | None = None
        self._working: dict[str, str] = {}
        """Which user has a process that was given out."""
        self._load: Counter[str] = Counter()
        self._homeless: dict[str, dict[str, int]] = {}
        """Attempts that no executor was there for, by type."""
        self._waiters = 0
        self._crews: dict[str, dict[str, Crew]] = {}

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        """Take one event, or answer one question."""
        self._crews = {}
        self._resume()
        if input_message.input_message_id is not None:
            self._returned(input_message)
            return None
        asks: dict[object, Callable[[FlowMessage], dict[str, Any] | None]] = {
            "begin": self._begin,
            "started": self._started,
            "timer": self._timer,
            "arrived": self._arrived,
            "gone": self._gone,
            "add_child": self._add_child,
            "cancel": self._cancel,
            "get": self._get,
            "process": self._process,
            "wait": self._wait,
            "picture": self._picture,
        }
        ask = asks.get(input_message.data.get("ask"))
        if ask is None:
            raise SerializationError("A run is asked to get, process, wait, add_child or cancel.")
        return ask(input_message)

    # -- what happens ------------------------------------------------------------------------------------------

    def _begin(self, message: FlowMessage) -> None:
        self._only_owner(message)
        specs = read_specs(message.data["specs"])
        self.records["m"] = [message.data["initiator"], message.data["at"]]
        for spec in specs:
            self.records[f"f:{spec.nodename}"] = spec.to_dict()
        self._step(Submitted(tuple(spec.process() for spec in specs), time.time()))

    def _started(self, message: FlowMessage) -> None:
        process, attempt = str(message.data.get("process")), message.data.get("attempt")
        given = self.records.get(f"a:{process}:{attempt}")
        if given is None or given[0] != message.sender or not isinstance(attempt, int):
            raise AccessDeniedError("This step is not yours.")
        self._step(Started(process, attempt, time.time()))

    def _returned(self, message: FlowMessage) -> None:
        """An executor has answered, or cannot."""
        found = self._attempt_of(message)
        if found is None:
            return
        process, attempt = found
        failure, data, now = message.failure, message.data, time.time()
        if failure is None:
            self._step(Started(process, attempt, now))  # Short steps do not tell.
        if failure is not None:
            if failure.get("code") in GONE:
                self._step(Lost(process, attempt, now))
            else:
                reason = f"{failure.get('error_type')}: {failure.get('text')}"
                self._step(Failed(process, attempt, reason, now, retry=failure.get("code") != "poison_message"))
        elif "error" in data:
            self._step(Failed(process, attempt, str(data["error"]), now, retry=data.get("retry") is True))
        elif not is_packed(data.get("output")):
            self._step(Failed(process, attempt, "its executor sent no output", now, retry=False))
        else:
            status = self._now.statuses[process]
            if status.attempt == attempt and status.given_out:
                self.records[f"o:{process}"] = data["output"]
            self._step(Succeeded(process, attempt, now))

    def _attempt_of(self, message: FlowMessage) -> tuple[str, int] | None:
        process, attempt = message.data.get("process"), message.data.get("attempt")
        if message.failure is None:
            given = self.records.get(f"a:{process}:{attempt}")
            if isinstance(process, str) and isinstance(attempt, int) and given is not None:
                return (process, attempt) if given[2] == message.input_message_id else None
            return None
        for name, given in self.records.scan("a:").items():
            if given[2] == message.input_message_id:
                _, process, number = name.split(":")
                return process, int(number)
        return None

    def _timer(self, message: FlowMessage) -> None:
        self._only_owner(message)
        process, attempt, kind = (message.data[name] for name in ("process", "attempt", "kind"))
        self._step(TimerDue(Timer(process, attempt, TimerKind(kind)), time.time()))

    def _arrived(self, message: FlowMessage) -> None:
        """There are executors of a type that was wanted."""
        self._only_owner(message)
        waiting = self._homeless.pop(message.data["executortype"], {})
        self._obey([Start(name, attempt, message.data["executortype"]) for name, attempt in waiting.items()])
        self._turn.leave_no_record()

    def _gone(self, message: FlowMessage) -> None:
        """All executors of a type that a user had are gone: others get what they had."""
        self._only_owner(message)
        kind, user = message.data["executortype"], message.data["user"]
        lost = [
            name for name, one in self._working.items() if one == user and self._now.spec(name).executortype == kind
        ]
        for name in lost:
            attempt = self._now.statuses[name].attempt
            self._stop(name, attempt)
            self._step(Lost(name, attempt, time.time()))
        self._turn.leave_no_record()

    # -- asked by users ----------------------------------------------------------------------------------------

    def _add_child(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=True)
        data = message.data
        spec, parent, child = read_spec(data.get("spec")), str(data.get("parent")), data.get("child")
        event = ChildAdded(
            parent,
            None if child is None else str(child),
            spec.process(alone=True),
            data.get("insert") is True,
            time.time(),
        )
        if spec.nodename not in self._now:
            self.records[f"f:{spec.nodename}"] = spec.to_dict()
        self._step(event)
        return {"processid": str(ProcessId(self._id, spec.nodename))}

    def _cancel(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=False)
        process = message.data.get("process")
        if process is not None and process not in self._now:
            raise WorkflowError(f"{self._id} has no process {str(process)[:100]}.")
        self._step(Cancelled(process, time.time()))
        return {}

    def _get(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=True)
        self._turn.leave_no_record()
        return self._view()

    def _process(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=True)
        self._turn.leave_no_record()
        name = message.data.get("process")
        if not isinstance(name, str) or name not in self._now:
            raise WorkflowError(f"{self._id} has no process {str(name)[:100]}.", hint="Take one of processids.")
        status = self._now.statuses[name]
        given = self.records.get(f"a:{name}:{status.attempt}")
        return {
            "processid": str(ProcessId(self._id, name)),
            "spec": self.records.get(f"f:{name}"),
            "state": status.state,
            "output": self.records.get(f"o:{name}"),
            "attempt": status.attempt,
            "reason": status.reason,
            "executor": "" if given is None else given[0],
            "started_at": status.started_at,
            "ended_at": status.ended_at,
        }

    def _picture(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=True)
        self._turn.leave_no_record()
        picture = picture_of(self._now)
        return {
            "nodes": [[one.name, one.label, one.state, one.title] for one in picture.nodes],
            "edges": [[one.start, one.end, one.label, one.dashed] for one in picture.edges],
        }

    def _wait(self, message: FlowMessage) -> dict[str, Any] | None:
        self._check(message, execute=True)
        seen = message.data.get("done")
        if self._now.state in GRAPH_ENDED or (seen is not None and seen != self._done):
            self._turn.leave_no_record()
            return self._view()
        self.records[f"w:{message.message_id}"] = [message.to_dict(), seen]
        self._waiters += 1
        return None

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
        self._waiters = len(self.records.scan("w:"))
        for command in outstanding(self._graph):
            if isinstance(command, Start) and self.records.get(f"a:{command.process}:{command.attempt}") is None:
                self._homeless.setdefault(command.executortype, {})[command.process] = command.attempt
        for name, status in self._graph.statuses.items():
            given = self.records.get(f"a:{name}:{status.attempt}") if status.given_out else None
            if given is not None:
                self._working[name] = given[0]
                self._load[given[0]] += 1

    def _step(self, event: Event) -> None:
        before = self._done
        self._graph, commands = step(self._now, event)
        delta = self._graph.delta
        for name, record in changes(delta).items():
            self.records[name] = record
        for name, status in delta.statuses.items():
            if not status.given_out and name in self._working:
                self._load[self._working.pop(name)] -= 1
        self._obey(commands)
        if self._waiters and self._done != before:
            self._tell_waiters()
        if not (delta.statuses or delta.specs or delta.head or commands):
            self._turn.leave_no_record()

    def _obey(self, commands: tuple[Command, ...] | list[Start]) -> None:
        starts = sorted((one for one in commands if isinstance(one, Start)), key=lambda one: -one.priority)
        for command in commands:
            match command:
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
                    self._tell(
                        colony_address(self._turn.user_id, self._id.colony), {"ask": "ended", "run": self._id.flow_id}
                    )
        for start in starts:
            self._start(start)

    def _start(self, start: Start) -> None:
        name, attempt, kind = start.process, start.attempt, start.executortype
        if self._now.statuses[name].attempt != attempt or not self._now.statuses[name].given_out:
            return
        if kind not in self._crews:
            self._crews[kind] = self._registry.crews(kind)
        crews = self._crews[kind]
        if not crews:
            if kind not in self._homeless:
                wanted = {"ask": "wanted", "executortype": kind, "run": self._id.flow_id}
                self._tell(colony_address(self._turn.user_id, self._id.colony), wanted)
            self._homeless.setdefault(kind, {})[name] = attempt
            return
        user = min(crews, key=lambda one: ((self._load[one] + 1) / crews[one].size, one))
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
        there = self._turn.instance(crews[user].address)
        message = there.package_input_message(data)
        there.get_reply(message)
        self.records[f"a:{name}:{attempt}"] = [user, crews[user].control.to_dict(), message.message_id]
        self._working[name] = user
        self._load[user] += 1

    def _inputs(self, name: str) -> list[Any]:
        needed = inputs_of(self._now, name)
        outputs = self.records.get_many([f"o:{one.process}" for one in needed])
        return [outputs.get(f"o:{one.process}", [False, None]) if one.delivered else [False, None] for one in needed]

    def _stop(self, process: str, attempt: int) -> None:
        kind = self._now.spec(process).executortype
        if self._homeless.get(kind, {}).get(process) == attempt:
            del self._homeless[kind][process]
        given = self.records.get(f"a:{process}:{attempt}")
        if given is not None:
            self._tell(InstanceAddress.from_dict(given[1]), {"ask": "stop", "message": given[2]})

    def _tell_waiters(self) -> None:
        over = self._now.state in GRAPH_ENDED
        for name, (message, seen) in self.records.scan("w:").items():
            if over or seen is not None:
                answer = self.package_output_message(FlowMessage.from_dict(message), self._view())
                self.send_message(answer)
                del self.records[name]
                self._waiters -= 1

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

    def _only_owner(self, message: FlowMessage) -> None:
        if message.sender != self._turn.user_id:
            raise AccessDeniedError("Only the colony itself tells its runs this.")

    def _check(self, message: FlowMessage, *, execute: bool) -> None:
        """The owner, who submitted it, and (``execute``) who works for the colony."""
        if message.sender in (self._turn.user_id, self.records.get("m", [None])[0]):
            return
        if not (execute and self._registry.rights(str(message.sender)).execute):
            raise AccessDeniedError(f"{self._id} is not yours.", hint="Ask who submitted it, or the colony's owner.")

    def _tell(self, address: InstanceAddress, data: dict[str, Any]) -> None:
        there = self._turn.instance(address)
        there.send_message(there.package_input_message(data))


def _timer_name(timer: Timer) -> str:
    return f"t:{timer.process}:{timer.attempt}:{timer.kind}"
