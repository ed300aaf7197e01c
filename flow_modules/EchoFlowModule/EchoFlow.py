"""Answers with what it was sent: for trying out and for measuring."""

from __future__ import annotations

from typing import Any

from coflows import AtomicFlow, FlowMessage


class EchoFlow(AtomicFlow):
    """Whatever data comes in goes out."""

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return input_message.data
