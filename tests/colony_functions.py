"""Functions that executors of the tests register, with ``--functions tests.colony_functions``."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def fetch(name: str) -> dict[str, Any]:
    return {"name": name, "rows": [1, 2, 3], "fetched_by": os.getpid()}


def process(data: dict[str, Any]) -> tuple[int, int]:
    return sum(data["rows"]), data["fetched_by"]


def store(total: int, fetched_by: int) -> dict[str, int]:
    return {"stored": total, "fetched_by": fetched_by, "stored_by": os.getpid()}


def note(*arguments: Any, ctx: dict[str, Any] | None = None) -> str:
    """An effect outside, once for each attempt however often that is begun: its key names it."""
    assert ctx is not None
    time.sleep(0.02)
    Path(arguments[-1], ctx["idempotency_key"].replace("/", " ")).touch()
    return str(ctx["process"].name)


def count(*names: Any) -> int:
    return len(names)


def tick(before: int = 0, delay: float = 0.0) -> int:
    time.sleep(delay)
    return before + 1
