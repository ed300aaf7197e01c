"""A made-up world for process graphs: outcomes are fixed beforehand, a test chooses the order of what happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from coflows.workflow.graph.commands import ClearTimer, Command, Decide, End, SetTimer, Start, Stop, Timer
from coflows.workflow.graph.events import (
    ChildAdded,
    Decided,
    Event,
    Failed,
    Lost,
    Started,
    Submitted,
    Succeeded,
    TimedOut,
    TimerDue,
)
from coflows.workflow.graph.process import ProcessSpec
from coflows.workflow.graph.records import changes, load
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.graph.stepping import Graph, step

Pick = Callable[[int], int]
"""Which of so many things that may happen now does happen."""


@dataclass
class World:
    """``outcomes[name]`` are those of a process's attempts, one after the other; further ones succeed. ``adds[name]``
    is what it adds when it has started: above which process, and whether in between."""

    specs: list[ProcessSpec]
    outcomes: dict[str, list[str]] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    skipped: frozenset[str] = frozenset()
    adds: dict[str, tuple[str | None, bool]] = field(default_factory=dict)
    reload: bool = False
    """Whether the graph is loaded anew after every event, from the changes written over each other."""

    def __post_init__(self) -> None:
        self.graph = Graph()
        self.stored: dict[str, Any] = {}
        self.possible: list[Event] = []
        self.timers: dict[Timer, float] = {}
        self.given_out: set[tuple[str, int]] = set()
        self.log: list[Command] = []
        self.written: list[int] = []
        self.clock = 1.0

    def run(self, pick: Pick = lambda count: 0) -> World:
        """Until nothing is left that may happen."""
        self.tell(Submitted(tuple(self.specs), max_step_inputs=1000))
        for _ in range(100_000):
            if self.possible:
                self.tell(self.possible.pop(pick(len(self.possible))))
            elif self.timers:
                timer = min(self.timers, key=lambda one: (self.timers[one], one))
                self.clock = max(self.clock, self.timers[timer])
                self.tell(TimerDue(timer))
                assert timer not in self.timers
            else:
                return self
        raise AssertionError("This graph does not end.")

    def tell(self, event: Event) -> None:
        event = replace(event, at=self.clock)
        before, statuses = self.graph, dict(self.graph.statuses)
        self.graph, commands = step(before, event)
        assert dict(before.statuses) == statuses, "the graph before stays as it was"
        self.write()
        for command in commands:
            self.obey(command)
        if isinstance(event, Started):
            self.began(event.process, event.attempt)
        if not isinstance(event, Submitted):
            assert step(self.graph, event) == (self.graph, ()), "what is told twice is told once"

    def write(self) -> None:
        changed = changes(self.graph.delta)
        self.written.append(len(changed))
        self.stored.update(changed)
        self.stored = {key: record for key, record in self.stored.items() if record is not None}
        if self.reload:
            loaded = load(self.stored)
            assert loaded == self.graph
            self.graph = loaded

    def obey(self, command: Command) -> None:
        self.log.append(command)
        match command:
            case Decide(name):
                self.possible.append(Decided(name, name not in self.skipped))
            case Start(name, attempt):
                self.give_out(name, attempt)
            case SetTimer(timer, due):
                assert timer not in self.timers
                self.timers[timer] = due
            case ClearTimer(timer):
                del self.timers[timer]
            case End():
                assert all(status.ended for status in self.graph.statuses.values())
            case Stop():
                pass

    def give_out(self, name: str, attempt: int) -> None:
        assert (name, attempt) not in self.given_out, "nothing is given out twice in one attempt"
        self.given_out.add((name, attempt))
        for need in self.graph.parents(name):
            parent = self.graph.statuses[need.process]
            assert parent.ended, f"{name} before {need.process}"
            assert not need.required or parent.state in (ProcessState.SUCCESS, ProcessState.SKIPPED)
        if self.outcome(name, attempt) != "unwanted":
            self.possible.append(Started(name, attempt))

    def began(self, name: str, attempt: int) -> None:
        if name in self.adds:
            above, insert = self.adds[name]
            self.tell(ChildAdded(name, above, ProcessSpec(f"{name}+"), insert))
        told: dict[str, Event] = {
            "succeeded": Succeeded(name, attempt, items=self.items.get(name, 2)),
            "no list": Succeeded(name, attempt),
            "failed": Failed(name, attempt, "boom"),
            "timed out": TimedOut(name, attempt),
            "lost": Lost(name, attempt),
        }
        if (outcome := self.outcome(name, attempt)) != "hangs":
            self.possible.append(told[outcome])

    def outcome(self, name: str, attempt: int) -> str:
        outcomes = self.outcomes.get(name, [])
        outcome = outcomes[attempt - 1] if attempt <= len(outcomes) else "succeeded"
        policy = self.graph.spec(name).policy
        missing = {"unwanted": policy.maxwaittime < 0, "hangs": policy.maxexectime < 0}
        return "succeeded" if missing.get(outcome) else outcome

    def states(self) -> dict[str, str]:
        """The end."""
        states = {name: str(status.state) for name, status in self.graph.statuses.items()}
        return {**states, "the graph": str(self.graph.state)}
