"""Flows that the tests serve, as ``tests.flow_classes.X``."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from typing import Any

from coflows import AtomicFlow, CompositeFlow, Flow, FlowMessage

GATE = threading.Event()
"""Held by tests that need a turn to be running."""


def config(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "description": f"{name}, for tests.", **more}


class Faulty(AtomicFlow):
    default_config = config("Faulty")

    def run(self, input_message: FlowMessage) -> None:
        self.flow_state["lost"] = True
        raise ZeroDivisionError("no number is divisible by nothing")


class Async(AtomicFlow):
    default_config = config("Async")

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        await asyncio.sleep(input_message.data.get("seconds", 0))
        return {"done": True}


class Gated(AtomicFlow):
    """Waits for the gate, then says so."""

    default_config = config("Gated")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        GATE.wait(30)
        return {"through": input_message.data.get("number")}


class GatedFromTwo(AtomicFlow):
    """Number 1 goes through at once, higher ones wait for the gate."""

    default_config = config("GatedFromTwo")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        if input_message.data["number"] > 1:
            GATE.wait(30)
        return {"through": input_message.data["number"]}


class Recorder(AtomicFlow):
    """Remembers the numbers it got, in order."""

    default_config = config("Recorder")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        seen = self.flow_state.setdefault("seen", [])
        seen.append(input_message.data.get("number"))
        return {"seen": list(seen)}


class Secretive(AtomicFlow):
    default_config = config("Secretive")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"length": len(self.secrets["TOKEN"])}


class Private(AtomicFlow):
    default_config = config("Private", private_keys=["api_key"])

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {}


class Careless(CompositeFlow):
    """Sends a private key on to its subflow, which echoes it."""

    default_config = config(
        "Careless",
        private_keys=["api_key"],
        subflows_config={"next": {"user_id": "local", "flow_endpoint": "end"}},
    )

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"echo": self.subflows["next"].ask({"a": 1, "api_key": "canary-4713"})}


class BadReply(AtomicFlow):
    default_config = config("BadReply")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"deep": {"set": {1, 2}}}


class Odd(AtomicFlow):
    """Replies with what it is told to, in Python; an ``exit`` ends more than the turn, if nobody looks."""

    default_config = config("Odd")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        deep: dict[str, Any] = {}
        for _ in range(40):
            deep = {"deeper": deep}
        return {"key": {"scores": {1: 2}}, "deep": deep, "many": {"x": [1] * 250_000}}[input_message.data["what"]]


class AsyncExit(AtomicFlow):
    """Exits when told to."""

    default_config = config("AsyncExit")

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        await asyncio.sleep(0)
        if input_message.data.get("exit"):
            sys.exit(3)
        return {"done": True}


class Chain(CompositeFlow):
    """Asks the next one and adds one; the end of the chain is an Echo-like flow."""

    default_config = config(
        "Chain",
        overridable=["subflows_config.next"],
        subflows_config={"next": {"user_id": "local", "flow_endpoint": "end"}},
    )

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"depth": self.subflows["next"].ask(input_message.data)["depth"] + 1}


class AsyncChain(Chain):
    """The same on the event loop."""

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:  # type: ignore[override]
        return {"depth": (await self.subflows["next"].ask_async(input_message.data))["depth"] + 1}


class End(AtomicFlow):
    default_config = config("End")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {"depth": 0}


class Pushing(CompositeFlow):
    """Asks by get_reply, and answers when the reply comes as a turn."""

    default_config = config("Pushing", subflows_config={"next": {"user_id": "local", "flow_endpoint": "end"}})

    def run(self, input_message: FlowMessage) -> None:
        waiting = self.flow_state.setdefault("waiting", {})
        if input_message.input_message_id is None:
            message = self.subflows["next"].package_input_message(input_message.data)
            waiting[message.message_id] = input_message
            self.subflows["next"].get_reply(message)
        else:
            first = waiting.pop(input_message.input_message_id)
            self.send_message(self.package_output_message(first, {**input_message.data, "id": first.data.get("id")}))


class Two(CompositeFlow):
    default_config = config(
        "Two",
        subflows_config={
            "left": {"user_id": "local", "flow_endpoint": "left"},
            "right": {"user_id": "local", "flow_endpoint": "right"},
        },
    )

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {key: self.subflows[key].ask(input_message.data) for key in ("left", "right")}


class Nameless(AtomicFlow):
    default_config = {"description": "Has no name."}

    def run(self, input_message: FlowMessage) -> None:
        return None


class Unfinished(CompositeFlow):
    default_config = config("Unfinished", subflows_config={"next": {"flow_endpoint": "end"}})

    def run(self, input_message: FlowMessage) -> None:
        return None


class NoFlow:
    """Not a flow."""


__all__ = ["Flow"]


class Alarm(AtomicFlow):
    """Rings when told to, and keeps what it rang on record."""

    default_config = config("Alarm")

    def run(self, input_message: FlowMessage) -> dict[str, Any] | None:
        data = input_message.data
        if input_message.src_flow_id == self.get_instance_id():
            rung = self.records.get("rung", [])
            self.records["rung"] = [*rung, data["ring"]]
            waiting = self.flow_state.pop("waiting", None)
            if waiting is not None:
                self.send_message(self.package_output_message(waiting, {"rung": [*rung, data["ring"]]}))
            if data.get("again"):
                self.send_later(0, {"ring": data["again"]})
            return None
        if "cancel" in data:
            self.cancel_later(self.flow_state["timers"].pop(data["cancel"]))
        if data.get("wait"):
            self.flow_state["waiting"] = input_message
            return None
        if "ring" in data:
            timer = self.send_later(data["seconds"], {"ring": data["ring"], "again": data.get("again")})
            self.flow_state.setdefault("timers", {})[data["ring"]] = timer
        if data.get("raise"):
            raise ValueError("and so it sets no timer")
        return {"rung": self.records.get("rung", [])}


class LongTeller(CompositeFlow):
    """Takes its time, then tells its subflow a number; nobody waits for that."""

    default_config = config("LongTeller", subflows_config={"told": {"user_id": "local", "flow_endpoint": "told"}})

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        time.sleep(input_message.data["seconds"])
        told = self.subflows["told"]
        told.send_message(told.package_input_message({"number": input_message.data["number"]}))
        return {}
