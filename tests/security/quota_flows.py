"""Flows that callers of the quota tests attack, as ``tests.security.quota_flows.X``."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

from coflows import AtomicFlow, CompositeFlow, FlowMessage
from tests.flow_classes import config

BEGUN = threading.Semaphore(0)
"""Released by each turn of ``Stuck`` and ``Stubborn`` that has begun."""
GATE = threading.Event()
"""What they wait for."""


class Appender(AtomicFlow):
    """Keeps what it is sent."""

    default_config = config("Appender")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        kept = self.flow_state.setdefault("kept", [])
        if input_message.data.get("forget"):
            kept.clear()
        kept.append(input_message.data.get("text", ""))
        return {"kept": len(kept)}


class Stuck(AtomicFlow):
    """Its thread waits for the gate, whoever cancels it."""

    default_config = config("Stuck")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        if input_message.data.get("wait"):
            self.flow_state["waited"] = True
            BEGUN.release()
            GATE.wait(60)
        return {"waited": self.flow_state.get("waited", False)}


class Sleeping(AtomicFlow):
    """Sleeps for as long as it is told to, and says so when it is woken."""

    default_config = config("Sleeping")

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        await asyncio.sleep(input_message.data.get("seconds", 0))
        return {"slept": True}


class Stubborn(AtomicFlow):
    """Goes on when it is cancelled."""

    default_config = config("Stubborn")

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        if input_message.data.get("wait"):
            BEGUN.release()
            while not GATE.is_set():
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.05)
        return {"through": True}


class Parent(CompositeFlow):
    """Has two subflows of its owner's."""

    default_config = config(
        "Parent",
        subflows_config={name: {"user_id": "local", "flow_endpoint": "echo"} for name in ("left", "right")},
    )

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return {}


class Busy(AtomicFlow):
    """Computes for ever, in a process."""

    default_config = config("Busy", runs_in="process")

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        while input_message.data.get("wait"):
            pass
        return {"done": True}
