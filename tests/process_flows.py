"""Flows whose turns run in processes."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

from coflows import AtomicFlow, CompositeFlow, FlowMessage


def config(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name}, in a process.", "runs_in": "process", **more}


class Counter(AtomicFlow):
    """Counts in its state, and says where it runs."""

    default_config = config("Counter", private_keys=["token"], token="s3cret")

    def set_up_flow_state(self) -> None:
        self.flow_state = {"count": 0, "kinds": {"a set"}}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.flow_state["count"] += 1
        self.flow_state["token"] = self.flow_config["token"]
        if input_message.data.get("fail"):
            raise LookupError(f"failed at {self.flow_state['count']}")
        return {
            "count": self.flow_state["count"],
            "process": os.getpid(),
            "kinds": sorted(self.flow_state["kinds"]),
            "secret": self.secrets.get("KEY"),
            "instance": self.get_instance_id(),
            "key": self.idempotency_key,
            "token": self.flow_config["token"],
            "sender": input_message.sender,
        }


class OddError(Exception):
    """Cannot be made again from what it was pickled to."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")
        self.lock = threading.Lock()


class Odd(AtomicFlow):
    default_config = config("Odd")

    def run(self, input_message: FlowMessage) -> Any:
        if input_message.data.get("list"):
            return [1]
        raise OddError(1, 2)


class Deadly(AtomicFlow):
    """Dies in the way that it is told."""

    default_config = config("Deadly", memory_limit=700 * 2**20)

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        match input_message.data.get("how"):
            case "memory":
                held = []
                while True:
                    held.append(bytearray(10_000_000))
            case "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            case "exit":
                os._exit(3)
        return {"count": self.flow_state["count"]}


class Endless(AtomicFlow):
    """Says who works on it, through a named pipe, and never ends by itself."""

    default_config = config("Endless")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        if "pipe" in input_message.data:
            Path(input_message.data["pipe"]).write_text(str(os.getpid()))
            while True:
                pass
        return {"done": True}


class Asking(CompositeFlow):
    """Asks its subflow in the way that it is told."""

    default_config = config("Asking", subflows_config={"next": {"user_id": "local", "flow_endpoint": "counter"}})

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        next_flow, how = self.subflows["next"], input_message.data.get("how")
        if input_message.input_message_id is not None:
            waiting = self.flow_state["waiting"].pop(input_message.input_message_id)
            self.send_message(self.package_output_message(waiting, {"pushed": input_message.data["count"]}))
            return None
        if how == "push":
            message = next_flow.package_input_message({})
            self.flow_state.setdefault("waiting", {})[message.message_id] = input_message
            next_flow.get_reply(message)
            return None
        if how == "send":
            for _ in range(3):
                next_flow.send_message(next_flow.package_input_message({}))
            return {}
        if how == "futures":
            futures = [next_flow.get_reply_future(next_flow.package_input_message({})) for _ in range(5)]
            return {"counts": [future.get_data(30)["count"] for future in futures], "key": futures[0].key}  # type: ignore[attr-defined]
        if how == "unsendable":
            next_flow.send_message(next_flow.package_input_message({"a": {"set"}}))
        if how == "cancel":
            future = next_flow.get_reply_future(next_flow.package_input_message(input_message.data["pass"]))
            return {"cancelled": future.cancel(), "again": future.cancel(), "done": future.done()}
        if how == "fail":
            try:
                next_flow.ask({"fail": True}, 30)
            except Exception as error:
                return {"error": type(error).__name__, "text": str(error)}
        return next_flow.ask(input_message.data.get("pass", {}), 30)


class AsyncAsking(CompositeFlow):
    default_config = config("AsyncAsking", subflows_config={"next": {"user_id": "local", "flow_endpoint": "counter"}})

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        next_flow = self.subflows["next"]
        reply = await next_flow.get_reply_future(next_flow.package_input_message({}))
        return {"count": reply["count"], "process": os.getpid()}


class Link(CompositeFlow):
    """One link of a chain, whose end is a Counter."""

    default_config = config("Link", subflows_config={"next": {"user_id": "local", "flow_endpoint": "counter"}})

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"depth": self.subflows["next"].ask({}, 60).get("depth", 0) + 1}


class AsyncLink(Link):
    async def run(self, input_message: FlowMessage) -> dict[str, Any]:  # type: ignore[override]
        next_flow = self.subflows["next"]
        reply = await next_flow.get_reply_future(next_flow.package_input_message({}))
        return {"depth": reply.get("depth", 0) + 1}
