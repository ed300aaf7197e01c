"""Flows that the attacks are made on, as ``tests.security.flows.X``."""

from __future__ import annotations

import threading
from typing import Any

from coflows import AtomicFlow, CompositeFlow, FlowMessage
from coflows.model.address import InstanceAddress

GATE, ENTERED = threading.Event(), threading.Event()
"""What a Busy flow waits for, and says that it does."""
OUTCOMES: list[dict[str, Any]] = []
"""What Relays without anybody to tell have been told."""
TOLD = threading.Condition()


def config(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name}, attacked by tests.", **more}


class Tally(AtomicFlow):
    """Counts its messages, and tells by whom they were begun."""

    default_config = config("Tally")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"count": self.flow_state["count"], "root": input_message.root, "sender": input_message.sender}


class Busy(AtomicFlow):
    default_config = config("Busy")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        ENTERED.set()
        GATE.wait(30)
        return {}


class Deputy(CompositeFlow):
    """Asks its subflow for whoever asks it."""

    default_config = config("Deputy", subflows_config={"next": {"user_id": "local", "flow_endpoint": "tally"}})

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return self.subflows["next"].ask(input_message.data, 30)


class Relay(AtomicFlow):
    """Sends a message on along ``path`` (addresses of instances): each asks the next one as ``how`` says, and the last
    one says who began it."""

    default_config = config("Relay")
    takes_failures = True

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        runtime, data = self._running("anything"), input_message.data
        if input_message.input_message_id is not None:
            tell({"failure": dict(input_message.failure or {}), "began": input_message.root, **data})
            return None
        if data.get("how") == "timer" and input_message.src_flow_id != self.get_instance_id():
            self.send_later(0, data)
            return {}
        if not data.get("path"):
            return {"root": input_message.root, "budget": input_message.budget, "deadline": input_message.deadline}
        there = runtime.instance(InstanceAddress.from_dict(data["path"][0]))
        message = there.package_input_message({**data, "path": data["path"][1:]})
        message.deadline, message.budget = data.get("deadline"), data.get("budget")
        if data.get("how") in ("push", "timer"):
            try:
                there.get_reply(message)
            except Exception as error:
                tell({"failure": {"code": getattr(error, "code", ""), "text": str(error)}})
                raise
            return {}
        for _ in range(data.get("times", 1) - 1):
            there.ask({**data, "path": data["path"][1:]}, 30)
        return there.get_reply_future(message).get_data(30)


def tell(outcome: dict[str, Any]) -> None:
    with TOLD:
        OUTCOMES.append(outcome)
        TOLD.notify_all()
