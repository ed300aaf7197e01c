"""What runs when a process of a local run gets its turn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

Place = Literal["thread", "process", "async"]


@dataclass(frozen=True, slots=True)
class Body:
    """``function(*arguments)`` gives the output, or with ``place`` "async" an awaitable of it."""

    function: Callable[..., Any] | Callable[..., Awaitable[Any]]
    place: Place = "thread"
    arguments: Callable[[list[Any]], list[Any]] = list
    """Makes the arguments of the inputs."""
    condition: Callable[[], object] | None = None
    """Whether the process is to run; asked once, when it is ready."""
