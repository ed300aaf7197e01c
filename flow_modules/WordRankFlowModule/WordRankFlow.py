"""A workflow behind an endpoint: each message is a run."""

from __future__ import annotations

import os
from typing import Any

from coflows import AtomicFlow, FlowMessage

from .workflow import WordRank


class WordRankFlow(AtomicFlow):
    """``{"top": 5, "letters": 6}`` gives the ranking and a chart of it."""

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        defaults = {
            "parts": os.cpu_count() or 1,
            "letters": self.flow_config["letters"],
            "top": self.flow_config["top"],
        }
        request = {**defaults, **input_message.data}
        if not all(isinstance(request[name], int) and request[name] > 0 for name in defaults):
            raise ValueError(f"{', '.join(defaults)} are numbers from 1 on")
        flow = WordRank("word-rank", request)
        flow.run()
        return {"ranking": [list(item) for item in flow.get_result(flow.rank)], "chart": flow.get_result(flow.chart)}
