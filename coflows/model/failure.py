"""An error as data: what travels to the caller instead of an exception, and becomes one again there."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from coflows.errors import (
    CoflowsError,
    FlowCycleError,
    FlowInstanceError,
    RemoteFlowError,
    SerializationError,
)

MAX_TEXT = 4_000
MAX_TRACEBACK = 16_000
MAX_RETRY_AFTER = 86_400.0


def _subclasses(kind: type[CoflowsError]) -> Iterator[type[CoflowsError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _plain_error_class(code: str) -> type[CoflowsError]:
    """The class with this code that takes only a text and a hint; CoflowsError for unknown codes."""
    for kind in _subclasses(CoflowsError):
        if kind.code == code and kind.__init__ is CoflowsError.__init__:
            return kind
    return CoflowsError


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."


def _seconds(value: object) -> float | None:
    """A time to wait, as another user names it: of a day at most."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0.0:
        return None
    return min(float(value), MAX_RETRY_AFTER)


@dataclass(frozen=True, slots=True)
class Failure:
    """``raised`` tells an exception of the flow's own code (it becomes a RemoteFlowError at the caller) from an
    error of the runtime (it becomes the error class with the same code). ``trace`` is only sent to the owner;
    ``retry_after`` is in seconds."""

    code: str
    error_type: str
    text: str
    hint: str = ""
    raised: bool = False
    trace: str | None = None
    retry_after: float | None = None

    @classmethod
    def of(
        cls, error: BaseException, *, raised: bool = False, clean: Callable[[str], str] = lambda text: text
    ) -> Failure:
        """Describe an exception; with its traceback when the flow's code raised it. All texts go through ``clean``."""
        known = isinstance(error, CoflowsError)
        text = error.message if isinstance(error, CoflowsError) else str(error)
        return cls(
            code=error.code if isinstance(error, CoflowsError) else "exception",
            error_type=type(error).__qualname__,
            text=_clipped(clean(text), MAX_TEXT),
            hint=clean(error.hint) if known and isinstance(error, CoflowsError) else "",
            raised=raised,
            trace=clean("".join(traceback.format_exception(error)))[-MAX_TRACEBACK:] if raised else None,
            retry_after=error.retry_after if isinstance(error, CoflowsError) else None,
        )

    def for_others(self) -> Failure:
        """The same without what only the owner may see."""
        return replace(self, trace=None)

    def to_error(self, where: str) -> CoflowsError:
        """The exception to raise at the caller; ``where`` names the flow that was called."""
        error = self._raised(where) if self.raised else _plain_error_class(self.code)(self.text, hint=self.hint)
        error.retry_after = self.retry_after
        return error

    def _raised(self, where: str) -> RemoteFlowError:
        return RemoteFlowError(
            f"{where} raised {self.error_type}: {self.text}",
            error_type=self.error_type,
            error_text=self.text,
            remote_code=None if self.code == "exception" else self.code,
            remote_traceback=self.trace,
            hint=self.hint,
        )

    def within(self, step: str) -> FlowInstanceError:
        """The error of a fetch that failed at ``step``, a link of the chain of subflows."""
        kind = FlowCycleError if self.code == FlowCycleError.code else FlowInstanceError
        reason = self.text if self.code in (kind.code, FlowInstanceError.code) else f"{self.code}: {self.text}"
        return kind(f"{step} -> {reason}", hint=self.hint, retry_after=self.retry_after)

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict; ``from_dict`` reads it back."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Failure:
        """Check and build; raises SerializationError. Safe on data from other users."""
        try:
            trace = value.get("trace")
            return cls(
                code=str(value["code"])[:64],
                error_type=str(value["error_type"])[:200],
                text=_clipped(str(value["text"]), MAX_TEXT),
                hint=_clipped(str(value.get("hint", "")), MAX_TEXT),
                raised=value.get("raised") is True,
                trace=None if trace is None else str(trace)[:MAX_TRACEBACK],
                retry_after=_seconds(value.get("retry_after")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise SerializationError(f"Failure is malformed: {error!r}.") from error
