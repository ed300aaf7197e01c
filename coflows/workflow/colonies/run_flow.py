"""A run of a submitted workflow: an instance, whose messages are what happens to it and what is asked of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, ClassVar

from coflows.codec.wire import encode
from coflows.errors import AccessDeniedError, SerializationError, WorkflowError
from coflows.model.messages import FlowMessage
from coflows.workflow.colonies.function_spec import read_spec, read_specs
from coflows.workflow.colonies.graph_flow import GraphFlow
from coflows.workflow.colonies.places import ProcessId
from coflows.workflow.colonies.process_graph import is_packed
from coflows.workflow.graph.commands import Timer, TimerKind
from coflows.workflow.graph.events import (
    Cancelled,
    ChildAdded,
    Failed,
    Lost,
    Started,
    Submitted,
    Succeeded,
    TimerDue,
)
from coflows.workflow.graph.states import GRAPH_ENDED
from coflows.workflow.pictures.picture import picture_of

logger = logging.getLogger(__name__)

GONE = ("instance_not_found", "endpoint_not_found")
"""Failures that tell of an executor that is not there any more."""


MAX_WAITERS, MAX_QUESTION = 10_000, 500
"""Who wait for one run at a time, and bytes of what each asks."""


class RunFlow(GraphFlow):
    """Takes what happens to a run, and answers ``{"ask": ...}``; see ``Colonies`` for what may be asked."""

    default_config: ClassVar[dict[str, Any]] = {"name": "Run", "description": "Runs a submitted workflow."}
    open_to_all = True
    takes_failures = True

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        """Take one event, or answer one question."""
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
            "outputs": self._give_outputs,
            "lacks": self._lacks,
            "picture": self._picture,
        }
        ask = asks.get(input_message.data.get("ask"))
        if ask is None:
            raise SerializationError("A run is asked to get, process, wait, add_child or cancel.")
        if ask != self._begin and self.records.get("m") is None:
            self._too_early(input_message)
            return None
        return ask(input_message)

    # -- what happens ------------------------------------------------------------------------------------------

    def _begin(self, message: FlowMessage) -> None:
        self._only_owner(message)
        if self.records.get("m") is not None:
            return
        data = message.data
        given = data.get("specs")
        if given is None:
            given = self._registry.parts(*data["submission"])
            self._tell_colony({"ask": "begun", "submission": data["submission"]})
        specs = read_specs(given)
        self.records["m"] = [data["initiator"], data["at"], data["fail_fast"]]
        for spec in specs:
            self.records[f"f:{spec.nodename}"] = spec.to_dict()
        processes = tuple(spec.process() for spec in specs)
        self._step(Submitted(processes, time.time(), max_step_inputs=data["max_step_inputs"]))
        for name, early in self.records.scan("q:").items():
            del self.records[name]
            question = FlowMessage.from_dict(early)
            try:
                answer = self._wait(question) if question.data["ask"] == "wait" else self._get(question)
            except AccessDeniedError as error:
                logger.info("A question that came early is not answered: %s", error)
                continue
            if answer is not None:
                self.send_message(self.package_output_message(question, answer))

    def _too_early(self, message: FlowMessage) -> None:
        """The run is made, and its graph is on its way."""
        if message.data["ask"] not in ("get", "wait"):
            raise WorkflowError(f"{self._id} is about to begin.", hint="Try again.")
        self.records[f"q:{message.message_id}"] = _question(message)

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
        self._pace.note_end(self._now.spec(process).executortype, short=self._now.statuses[process].awaits != "")
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
            self._succeeded(process, attempt, data["output"], now)

    def _succeeded(self, process: str, attempt: int, output: list[Any], now: float) -> None:
        items = len(output[1]) if isinstance(output[1], list) else None
        if items is None and self._now.spec(process).foreach:
            reason = f"a foreach step returns a list, and it returned {type(output[1]).__name__}"
            self._step(Failed(process, attempt, reason, now, retry=False))
            return
        status = self._now.statuses[process]
        if status.attempt == attempt and status.given_out:
            self.records[f"o:{process}"] = output
        self._step(Succeeded(process, attempt, now, items))

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
        """There are more executors of a type that was wanted."""
        self._only_owner(message)
        self._wanted.discard(message.data["executortype"])
        self._give_out(message.data["executortype"])
        while self._next:
            self._step(self._next.popleft())
        self._turn.leave_no_record()

    def _gone(self, message: FlowMessage) -> None:
        """All executors of a type that a user had are gone: others get what they had."""
        self._only_owner(message)
        kind, user = message.data["executortype"], message.data["user"]
        self._wanted.discard(kind)
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
        return self._view(message)

    def _process(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, execute=True)
        self._turn.leave_no_record()
        name = message.data.get("process")
        if not isinstance(name, str) or name not in self._now:
            raise WorkflowError(
                f"{self._id} has no process {str(name)[:100]}.",
                hint=f"Take one of processids: `coflows workflow get --workflowid {self._id}` lists them.",
            )
        status = self._now.statuses[name]
        given = self.records.get(f"a:{name}:{status.attempt}")
        return {
            "processid": str(ProcessId(self._id, name)),
            "spec": {key: value for key, value in self._outputs.spec(name).items() if not isinstance(value, bytes)},
            "state": status.state,
            "output": self.records.get(f"o:{name}"),
            "attempt": status.attempt,
            "reason": status.reason,
            "executor": "" if given is None else given[0],
            "started_at": status.started_at,
            "ended_at": status.ended_at,
        }

    def _give_outputs(self, message: FlowMessage) -> dict[str, Any]:
        """Those of some processes, as many as a message may hold, from the first on; None for one without."""
        self._check(message, execute=True)
        self._turn.leave_no_record()
        left = self._turn.resources["client"].settings.max_message_bytes - 4096
        outputs: list[Any] = []
        for name in message.data.get("processes") or []:
            output = self.records.get(f"o:{name}")
            left -= len(encode(output)) + 8
            if outputs and left < 0:
                break
            outputs.append(output)
        return {"outputs": outputs}

    def _lacks(self, message: FlowMessage) -> dict[str, Any]:
        """The executor types of which there is none for what is ready."""
        self._check(message, execute=True)
        self._turn.leave_no_record()
        return {"executortypes": [kind for kind in self._backlog.types() if not self._registry.crews(kind)]}

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
            return self._view(message)
        if len(self._waiters) >= MAX_WAITERS:
            raise WorkflowError(f"{MAX_WAITERS} already wait for {self._id}.", hint="Ask how it is, from time to time.")
        self.records[f"w:{message.message_id}"] = [_question(message), seen]
        self._waiters[f"w:{message.message_id}"] = seen
        return None

    # ----------------------------------------------------------------------------------------------------------

    def _only_owner(self, message: FlowMessage) -> None:
        if message.sender != self._turn.user_id:
            raise AccessDeniedError("Only the colony itself tells its runs this.")

    def _check(self, message: FlowMessage, *, execute: bool) -> None:
        """The owner, who submitted it, and (``execute``) who works for the colony."""
        if message.sender in (self._turn.user_id, self.records.get("m", [None])[0]):
            return
        if not (execute and self._registry.rights(str(message.sender)).execute):
            raise AccessDeniedError(f"{self._id} is not yours.", hint="Ask who submitted it, or the colony's owner.")


def _question(message: FlowMessage) -> dict[str, Any]:
    """A question as it is kept: what else its sender put into it is not."""
    asked = {name: message.data[name] for name in ("ask", "done", "seen", "full") if name in message.data}
    if len(encode(asked)) > MAX_QUESTION:
        raise SerializationError("A run is asked with less.")
    return {**message.to_dict(), "data": asked}
