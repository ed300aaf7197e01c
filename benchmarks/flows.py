"""Flow classes that only the benchmarks need."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from coflows import AtomicFlow, CompositeFlow, FlowMessage


class Sleeper(AtomicFlow):
    """Waits for as many seconds as it is told, without a thread."""

    default_config: ClassVar[dict[str, Any]] = {"name": "Sleeper", "description": "Waits, then answers."}

    async def run(self, input_message: FlowMessage) -> dict[str, Any]:
        await asyncio.sleep(input_message.data["seconds"])
        return {"number": input_message.data["number"]}


class Wide(CompositeFlow):
    """A flow whose subflows are given as overrides."""

    default_config: ClassVar[dict[str, Any]] = {
        "name": "Wide",
        "description": "Has as many subflows as it is given.",
        "subflows_config": {"s0": {"user_id": "local", "flow_endpoint": "leaf"}},
    }

    def run(self, input_message: FlowMessage) -> None:
        return None
