"""How workflows come to a colony: whole or in parts, checked, and each made a run of its own."""

from __future__ import annotations

import time
from typing import Any

from coflows.errors import AccessDeniedError, QuotaExceededError, WorkflowError, WorkflowInvalidError
from coflows.flows.flow import AtomicFlow
from coflows.flows.runtime import FlowRuntime
from coflows.model.address import InstanceAddress
from coflows.model.messages import FlowMessage
from coflows.model.names import LOCAL, check_token
from coflows.mounting import Mounter
from coflows.resolution import MountRequest, derive_id
from coflows.usage import RETRY
from coflows.workflow.colonies.function_spec import MAX_PROCESSES, read_specs
from coflows.workflow.colonies.places import GraphId, run_address, runs_endpoint
from coflows.workflow.colonies.registry import Rights, part_name
from coflows.workflow.graph import Graph, step
from coflows.workflow.graph.events import Submitted

MOUNT_TIMEOUT = 60.0
MAX_PARTS, MAX_OPEN = 256, 4
"""In how many parts a workflow may come, and how many of a user's may be coming at once."""
DROP_AFTER = 600.0
"""Seconds after which the parts of a workflow that was not submitted are dropped."""


class SubmissionFlow(AtomicFlow):
    """A colony, as far as it takes workflows; its records are those of ``registry``."""

    own_chain = True

    def _submit(self, message: FlowMessage) -> dict[str, Any]:
        self._check(message, submit=True)
        data = message.data
        run_id, max_step_inputs = data.get("run_id"), data.get("max_step_inputs", MAX_PROCESSES)
        if not isinstance(max_step_inputs, int) or not 0 <= max_step_inputs <= MAX_PROCESSES:
            raise WorkflowInvalidError(f"max_step_inputs is {str(max_step_inputs)[:20]}.", hint="Give a count.")
        alias = None if run_id is None else f"i:{message.sender}:{derive_id('run', str(run_id))}"
        known = None if alias is None else self.records.get(alias)
        if known is not None:
            return {"processgraphid": str(GraphId(self._colony, known))}
        self._count_run(str(message.sender))
        request = MountRequest(
            endpoint=runs_endpoint(self._colony),
            client=LOCAL,
            request_id=derive_id(message.message_id, str(message.sender)),
            deadline=time.time() + MOUNT_TIMEOUT,
        )
        begin = {
            "ask": "begin",
            "initiator": message.sender,
            "at": time.time(),
            "fail_fast": data.get("fail_fast") is True,
            "max_step_inputs": max_step_inputs,
            **self._submitted(message),
        }
        (mounted,) = Mounter(self._turn.resources["client"]).mount([request])
        address = mounted.address
        self.records[f"g:{address.flow_id}"] = [message.sender, begin["at"], alias]
        if alias is not None:
            self.records[alias] = address.flow_id
        self.records[f"a:{address.flow_id}"] = True
        self._tell(address, begin)
        return {"processgraphid": str(GraphId(self._colony, address.flow_id))}

    def _count_run(self, user: str) -> None:
        """Runs are the owner's instances; a guest has as many as he may have instances. Raises QuotaExceededError."""
        if user == self._turn.user_id:
            return
        most, runs = self._turn.resources["client"].settings.quota.instances, self.records.get(f"n:{user}", 0)
        if most is not None and runs >= most:
            raise QuotaExceededError(
                f"You have {most} workflows in colony {self._colony} already.",
                hint="Remove those that are over: `coflows workflow removeall`.",
                retry_after=RETRY,
            )
        self.records[f"n:{user}"] = runs + 1

    def _submitted(self, message: FlowMessage) -> dict[str, Any]:
        """The specs, or where their parts are. What makes no graph is refused before anything is made."""
        given, submission = message.data.get("specs"), message.data.get("submission")
        found: dict[str, Any] = {"specs": given}
        if submission is not None:
            user, submission = str(message.sender), check_token(submission)
            count, timer = self.records.get(f"u:{user}:{submission}", [0, None])
            if timer is None or count != message.data.get("parts"):
                raise WorkflowInvalidError(f"Of the parts of this workflow {count} have come.", hint="Submit it again.")
            parts = [self.records.get(part_name(user, submission, number)) for number in range(count)]
            given = [spec for part in parts for spec in part]
            self.cancel_later(timer)
            found = {"submission": [user, submission, count]}
        specs = read_specs(given)
        step(Graph(), Submitted(tuple(spec.process() for spec in specs)))
        return found

    def _part(self, message: FlowMessage) -> dict[str, Any]:
        """One part of a workflow that is too large for a message; it is kept until all are there."""
        self._check(message, submit=True)
        user, submission = str(message.sender), check_token(message.data.get("submission"))
        number, specs = message.data.get("number"), message.data.get("specs")
        count, timer = self.records.get(f"u:{user}:{submission}", [0, None])
        if number != count or not isinstance(specs, list) or count >= MAX_PARTS:
            raise WorkflowInvalidError(f"This is not part {count} of a workflow.", hint="Submit it again.")
        if timer is None:
            if len(self.records.scan(f"u:{user}:")) >= MAX_OPEN:
                raise WorkflowError(f"{MAX_OPEN} of your workflows are being submitted.", hint="Try again later.")
            timer = self.send_later(DROP_AFTER, {"ask": "drop", "submission": [user, submission]})
        self.records[part_name(user, submission, count)] = specs
        self.records[f"u:{user}:{submission}"] = [count + 1, timer]
        return {}

    def _drop(self, message: FlowMessage) -> None:
        """A submission in parts is over: its run has them, or whoever submitted it is gone."""
        self._check(message)
        self._turn.leave_no_record()
        user, submission, *_ = message.data["submission"]
        for number in range(self.records.get(f"u:{user}:{submission}", [0])[0]):
            del self.records[part_name(user, submission, number)]
        del self.records[f"u:{user}:{submission}"]

    # ----------------------------------------------------------------------------------------------------------

    @property
    def _turn(self) -> FlowRuntime:
        return self._running("a colony")

    @property
    def _colony(self) -> str:
        return self._turn.endpoint.removeprefix("colony.")

    def _check(self, message: FlowMessage, *, submit: bool = False, execute: bool = False) -> None:
        """AccessDeniedError unless the owner asks, or who has one of these rights."""
        if message.sender == self._turn.user_id:
            return
        rights = Rights(*self.records.get(f"r:{message.sender}", []))
        if not ((submit and rights.submit) or (execute and rights.execute)):
            raise AccessDeniedError(
                f"You may not do this in colony {self._colony}.",
                hint="Its owner lets you: `coflows colony allow NAME YOUR_ID --submit --execute`, or allow(...).",
            )

    def _tell(self, address: InstanceAddress, data: dict[str, Any]) -> None:
        there = self._turn.instance(address)
        there.send_message(there.package_input_message(data))

    def _tell_run(self, run: str, data: dict[str, Any]) -> None:
        self._tell(run_address(self._turn.user_id, self._colony, run), data)
