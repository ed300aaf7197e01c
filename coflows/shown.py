"""What others wrote, as it may stand in a log, an error or at a terminal, where it commands nothing."""

from __future__ import annotations

import json
from typing import Any


def in_one_line(text: str, most: int = 500) -> str:
    """It makes no line of its own either."""
    return "".join(sign if sign.isprintable() else "?" for sign in text[:most])


def printable(text: str) -> str:
    """Lines stay lines."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() or sign in "\n\t" else "?" for sign in text)


def as_json(value: Any) -> str:
    """As JSON for people: in its own letters, and what is none escaped."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else json.dumps(sign)[1:-1] for sign in text)
