"""Counts the messages it gets, in its state."""

from __future__ import annotations

from coflows import AtomicFlow, FlowMessage


class CounterFlow(AtomicFlow):
    """``{}`` gives ``{"count": 1}``, then 2, and so on; ``{"fail": true}`` raises and counts nothing."""

    def set_up_flow_state(self) -> None:
        super().set_up_flow_state()
        self.flow_state["count"] = 0

    def run(self, input_message: FlowMessage) -> dict[str, int]:
        self.flow_state["count"] += 1
        if input_message.data.get("fail"):
            raise RuntimeError("asked to fail")
        return {"count": self.flow_state["count"]}
