"""The flows under fault: a witness that remembers what it applied, a relay in front of it, and one that kills."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

from coflows import AtomicFlow, CompositeFlow, FlowMessage


class Witness(AtomicFlow):
    """Remembers every number it was sent, in the order in which it applied them."""

    default_config = {"name": "Witness", "description": "Remembers."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        seen = self.flow_state.setdefault("seen", [])
        if "report" in input_message.data:
            return {"seen": seen}
        time.sleep(input_message.data.get("seconds", 0))
        seen.append(input_message.data["number"])
        return {"number": input_message.data["number"], "position": len(seen)}


class Relay(CompositeFlow):
    """Passes on, and passes the answer back."""

    default_config = {
        "name": "Relay",
        "description": "Passes on.",
        "overridable": ["subflows_config.next"],
        "subflows_config": {"next": {"user_id": "local", "flow_endpoint": "witness"}},
    }

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return self.subflows["next"].ask(input_message.data)


class Poison(AtomicFlow):
    """Kills its worker while a file says so; remembers what it survived."""

    default_config = {"name": "Poison", "description": "Kills."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        deadly = input_message.data.get("deadly_while")
        if deadly:
            with Path(f"{deadly}.runs").open("a") as runs:
                runs.write("x")
            if Path(deadly).exists():
                os.kill(os.getpid(), signal.SIGKILL)
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"count": self.flow_state["count"]}


class Slow(AtomicFlow):
    """Goes on when a file is there; remembers what it was sent, and writes down each time that it began."""

    default_config = {"name": "Slow", "description": "Takes its time."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        gate = Path(input_message.data["gate"])
        with gate.with_suffix(".runs").open("a") as runs:
            runs.write(f"{input_message.data['number']}\n")
        while not gate.exists():
            time.sleep(0.02)
        self.flow_state.setdefault("seen", []).append(input_message.data["number"])
        return {"seen": list(self.flow_state["seen"])}


class SlowAsync(AtomicFlow):
    """The same, without keeping a thread; a cancel reaches it."""

    default_config = {"name": "SlowAsync", "description": "Takes its time."}

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        gate = Path(input_message.data["gate"])
        with gate.with_suffix(".runs").open("a") as runs:
            runs.write(f"{input_message.data['number']}\n")
        while not gate.exists():
            await asyncio.sleep(0.02)
        return {"number": input_message.data["number"]}
