"""A flow that does with its secret all that an author may do by mistake; what it is told to do is its message."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any
from urllib.parse import quote

from coflows import AtomicFlow

ENCODINGS = {
    "plain": str,
    "base64": lambda text: base64.b64encode(f"user:{text}".encode()).decode(),
    "hex": lambda text: text.encode().hex(),
    "url": lambda text: f"https://api.example/?key={quote(text, safe='')}",
    "json": json.dumps,
}


class LeakyFlow(AtomicFlow):
    """``how`` names the mistake, ``encoding`` how the secret looks meanwhile."""

    default_config: dict[str, Any] = {"name": "Leaky", "description": "Shows its secret wherever it can."}

    def run(self, input_message: Any) -> dict[str, Any] | None:
        secret = ENCODINGS[input_message.data.get("encoding", "plain")](self.secrets["API_KEY"])
        match input_message.data["how"]:
            case "use":
                self.flow_state["used"] = self.flow_state.get("used", 0) + 1
                return {"length": len(secret), "used": self.flow_state["used"], "known": repr(self.secrets)}
            case "raise":
                raise ConnectionError(f"401 for {secret}")
            case "raise from":
                try:
                    raise ValueError(secret)
                except ValueError as error:
                    raise RuntimeError("The service would not answer.") from error
            case "raise group":
                raise ExceptionGroup("several", [KeyError(secret), ValueError(f"x {secret}")])
            case "raise long":
                raise ValueError("x" * 3_980 + secret)
            case "log":
                logging.getLogger("flow").debug("Calling with %s", secret)
                try:
                    raise ValueError(secret)
                except ValueError:
                    logging.getLogger("flow").exception("It failed.")
                return {}
            case "state":
                self.flow_state["headers"] = {"Authorization": f"Bearer {secret}"}
                return {}
            case "pickled state":
                self.flow_state["headers"] = {("Authorization", secret)}
                return {}
            case "record":
                self.records["headers"] = secret.encode()
                return {}
            case "reply":
                return {"headers": {"Authorization": secret}}
            case "key of a reply":
                return {secret: 1}
            case "timer":
                self.send_later(3600, {"how": "use", "with": secret})
                return {}
        raise NotImplementedError(input_message.data["how"])


class LeakyProcessFlow(LeakyFlow):
    """The same in a process of its own."""

    default_config = {"runs_in": "process"}


class Tally(AtomicFlow):
    """Counts its messages; one of them is poison."""

    default_config = {"name": "Tally", "description": "Counts."}

    def run(self, input_message: Any) -> dict[str, Any]:
        if input_message.data.get("poison"):
            raise ValueError("poison")
        self.flow_state["count"] = self.flow_state.get("count", 0) + 1
        return {"count": self.flow_state["count"]}
