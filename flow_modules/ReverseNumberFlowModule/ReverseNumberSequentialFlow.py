"""Reverses a number twice, waiting for each subflow."""

from __future__ import annotations

from typing import Any

from coflows import CompositeFlow, FlowMessage, KeyInterface


class ReverseNumberSequentialFlow(CompositeFlow):
    """``{"number": 1234}`` gives ``{"output_number": 1234}``, by way of two subflows."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first_to_second = KeyInterface(keys_to_rename={"output_number": "number"}, keys_to_select=["number"])

    def run(self, input_message: FlowMessage) -> None:
        first, second = self.subflows["first_reverse_flow"], self.subflows["second_reverse_flow"]

        future = first.get_reply_future(first.package_input_message(input_message.data))
        second_input = self.first_to_second(future.get_message())

        future = second.get_reply_future(second.package_input_message(second_input))
        self.send_message(self.package_output_message(input_message, future.get_data()))
