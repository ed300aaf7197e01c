"""How a managed flow is run."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from coflows.errors import FlowConfigError


class FlowType(StrEnum):
    """Where a managed flow runs."""

    INLINE = "inline"
    """In the thread that asks for it, which waits: for what takes no time."""
    THREAD = "thread"
    """In a thread. One that takes too long or is cancelled goes on, unheeded; its place is given to another."""
    PROCESS = "process"
    """In a worker process, which is ended when the flow takes too long or is cancelled."""
    ASYNC = "async"
    """As a coroutine, on the event loop of who asks for it."""


@dataclass(frozen=True, slots=True)
class FlowConfig:
    """``timeout``: seconds that one attempt may take, None for as long as it takes. ``retries``: how often it is tried
    again after it raised or took too long. Raises FlowConfigError."""

    name: str = ""
    description: str = ""
    flow_type: FlowType = FlowType.THREAD
    timeout: float | None = None
    retries: int = 0

    def __post_init__(self) -> None:
        try:
            object.__setattr__(self, "flow_type", FlowType(self.flow_type))
        except ValueError:
            kinds = ", ".join(FlowType)
            raise FlowConfigError(f"There is no flow type {self.flow_type!r}.", hint=f"There are: {kinds}.") from None
        if self.timeout is not None and not self.timeout > 0:
            raise FlowConfigError(
                f"A timeout of {self.timeout!r} s lets nothing run.", hint="Leave it out, or raise it."
            )
        if self.retries < 0:
            raise FlowConfigError(f"{self.retries!r} is no number of retries.", hint="Write 0 or more.")
