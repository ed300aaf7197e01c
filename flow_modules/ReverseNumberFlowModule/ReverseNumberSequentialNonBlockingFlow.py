"""Reverses a number twice without waiting: each reply of a subflow is a new turn."""

from __future__ import annotations

from typing import Any

from coflows import CompositeFlow, FlowMessage


class ReverseNumberSequentialNonBlockingFlow(CompositeFlow):
    """Like ReverseNumberSequentialFlow, but serves many callers at once: what each conversation has come to is kept
    in the state, under the id of the message whose reply it waits for."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def set_up_flow_state(self) -> None:
        super().set_up_flow_state()
        self.flow_state["waiting"] = {}

    def run(self, input_message: FlowMessage) -> None:
        if input_message.input_message_id is None:
            self._ask("first_reverse_flow", input_message.data["number"], input_message)
            return
        step = self.flow_state["waiting"].pop(input_message.input_message_id)
        if step["subflow"] == "first_reverse_flow":
            self._ask("second_reverse_flow", input_message.data["output_number"], step["initial_message"])
        else:
            self.send_message(self.package_output_message(step["initial_message"], input_message.data))

    def _ask(self, subflow: str, number: int, initial_message: FlowMessage) -> None:
        message = self.subflows[subflow].package_input_message({"number": number})
        self.flow_state["waiting"][message.message_id] = {"subflow": subflow, "initial_message": initial_message}
        self.subflows[subflow].get_reply(message)
