"""Where a managed flow is, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class FlowStatus(StrEnum):
    """Where a managed flow is."""

    PENDING = "pending"
    """It was not begun, or is going to be tried again."""
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    """It raised, took too long, was cancelled, or something that it requires failed."""

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self in (FlowStatus.COMPLETED, FlowStatus.FAILED)


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class FlowResult:
    """What came of a managed flow: its ``output``, or the ``error`` (and, where there was an exception, its traceback)
    as text. Times are in UTC; the start is that of the last attempt."""

    process_id: str
    status: FlowStatus
    output: Any = None
    error: str | None = None
    traceback: str | None = None
    start_time: datetime = field(default_factory=now)
    end_time: datetime = field(default_factory=now)
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values, as far as the output is plain; ``from_dict`` reads it back."""
        return {
            "process_id": self.process_id,
            "status": self.status.value,
            "output": self.output,
            "error": self.error,
            "traceback": self.traceback,
            "start_time": self.start_time.isoformat(),
            "end_time": self.end_time.isoformat(),
            "metadata": self.metadata,
        }

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> FlowResult:
        """Read what ``to_dict`` made."""
        times = {name: datetime.fromisoformat(value[name]) for name in ("start_time", "end_time")}
        return cls(**{**value, **times, "status": FlowStatus(value["status"])})
