"""What a worker process runs: a step that says when it begins. Imports nothing: so the process is ready sooner."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def announced(caller: Any, function: Callable[..., Any], *arguments: Any) -> Any:
    """Say that it begins, and do it."""
    caller.call(b"")
    return function(*arguments)
