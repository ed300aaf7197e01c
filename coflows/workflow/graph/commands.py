"""What a graph asks of its runner."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from coflows.workflow.graph.states import GraphState


class TimerKind(StrEnum):
    """What is over when a timer is due."""

    WAIT = "wait"
    EXECUTION = "execution"
    RETRY = "retry"


class Timer(NamedTuple):
    """A timer of one attempt; equal timers are the same one."""

    process: str
    attempt: int
    kind: TimerKind


@dataclass(frozen=True, slots=True)
class Decide:
    """Find out whether a process is to run, and tell with Decided."""

    process: str


@dataclass(frozen=True, slots=True)
class Start:
    """Give an attempt to an executor of this type; of several, that of the highest priority first, then in order."""

    process: str
    attempt: int
    executortype: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Stop:
    """An attempt that was given out is void: withdraw it, or stop it where it runs. What it still tells is ignored."""

    process: str
    attempt: int


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Tell with TimerDue when ``due`` (seconds since the epoch) is there. It is cleared in any case: by that too."""

    timer: Timer
    due: float


@dataclass(frozen=True, slots=True)
class ClearTimer:
    """A timer is no longer wanted."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class End:
    """The graph is over."""

    state: GraphState


Command = Decide | Start | Stop | SetTimer | ClearTimer | End
