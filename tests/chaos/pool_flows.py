"""Witnesses whose turns run in processes, and can be made to use up their memory or to crash."""

from __future__ import annotations

import os
import signal
from typing import Any

from coflows import FlowMessage
from tests.chaos.flows import Witness


class PoolWitness(Witness):
    """Remembers, in a process. A message with ``die`` is applied first and then ends its process: it must leave no
    trace."""

    default_config = {"runs_in": "process", "memory_limit": 700 * 2**20}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        how = input_message.data.get("die")
        if how is None:
            return super().run(input_message)
        self.flow_state.setdefault("seen", []).append(-1)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        held = []
        while True:
            held.append(bytearray(20_000_000))
