"""Reverses the digits of a number."""

from __future__ import annotations

from typing import Any

from coflows import AtomicFlow, FlowMessage


class ReverseNumberAtomicFlow(AtomicFlow):
    """``{"number": 1234}`` gives ``{"output_number": 4321}``; a minus sign stays in front."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def run(self, input_message: FlowMessage) -> None:
        number = input_message.data.get("number")
        if not isinstance(number, int) or isinstance(number, bool):
            raise ValueError(f"'number' must be an integer, not {number!r}")
        reversed_number = int(str(abs(number))[::-1]) * (-1 if number < 0 else 1)
        reply = self.package_output_message(input_message, {"output_number": reversed_number})
        self.send_message(reply)
