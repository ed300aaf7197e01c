"""One step of a graph. No I/O, no clock, no randomness."""

from __future__ import annotations

from collections.abc import Iterator

from coflows.workflow.graph import lifecycle
from coflows.workflow.graph.commands import Command, Decide, SetTimer, Start, Timer, TimerKind
from coflows.workflow.graph.draft import Draft
from coflows.workflow.graph.events import (
    Cancelled,
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
from coflows.workflow.graph.growth import add_child, submit
from coflows.workflow.graph.process import replaced
from coflows.workflow.graph.states import Awaits, ProcessState
from coflows.workflow.graph.value import Graph


def step(graph: Graph, event: Event) -> tuple[Graph, tuple[Command, ...]]:
    """The graph after the event, and what its runner is to do. ``graph`` stays as it was; the new one's ``delta`` is
    what changed. Events may come late, twice, or after their attempt is void: then they change nothing.

    Costs about as much as the event's process has neighbours; a cancel of the whole graph, as much as there are
    processes. Raises WorkflowInvalidError for a submission or a child that makes no graph.
    """
    draft = Draft(graph, event.at)
    match event:
        case Started():
            if _in_attempt(draft, event) and draft.status(event.process).awaits is Awaits.EXECUTOR:
                lifecycle.started(draft, event.process)
        case Succeeded():
            if _in_attempt(draft, event):
                lifecycle.succeeded(draft, event.process, event.items)
        case Failed():
            if _in_attempt(draft, event) or _undecided(draft, event.process, event.attempt):
                lifecycle.failed(draft, event.process, event.reason, retry=event.retry and event.attempt > 0)
        case TimedOut():
            if _in_attempt(draft, event):
                lifecycle.expired(draft, event.process)
        case Lost():
            if _in_attempt(draft, event):
                lifecycle.lost(draft, event.process)
        case Decided():
            if _undecided(draft, event.process, 0):
                if event.run:
                    lifecycle.begin(draft, event.process)
                else:
                    lifecycle.end(draft, event.process, ProcessState.SKIPPED)
        case TimerDue():
            _timer(draft, event.timer)
        case Cancelled(process=None):
            draft.head = replaced(draft.head, cancelled=draft.head.open > 0 or draft.head.cancelled)
            for process in graph.processes():
                lifecycle.end(draft, process, ProcessState.CANCELLED)
        case Cancelled(process=str(process)):
            if draft.knows(process):
                lifecycle.cancel(draft, process)
        case Submitted():
            submit(draft, event)
        case ChildAdded():
            add_child(draft, event)
    lifecycle.settle(draft)
    return draft.finish()


def outstanding(graph: Graph) -> Iterator[Command]:
    """What a graph that was loaded still has to ask for: attempts to give out, decisions, timers. Attempts that were
    begun are not asked for again; whoever loads the graph knows whether they still run, and tells Lost if not."""
    for process in graph.processes():
        status = graph.statuses[process]
        policy = graph.spec(process).policy
        if status.awaits is Awaits.DECISION:
            yield Decide(process)
        elif status.awaits is Awaits.EXECUTOR:
            yield Start(process, status.attempt, graph.spec(process).executortype, policy.priority)
            if policy.maxwaittime >= 0:
                yield SetTimer(Timer(process, status.attempt, TimerKind.WAIT), status.ready_at + policy.maxwaittime)
        elif status.awaits is Awaits.RETRY:
            yield SetTimer(Timer(process, status.attempt, TimerKind.RETRY), status.ready_at)
        elif status.given_out and policy.maxexectime >= 0:
            yield SetTimer(Timer(process, status.attempt, TimerKind.EXECUTION), status.started_at + policy.maxexectime)


def _in_attempt(draft: Draft, event: Started | Succeeded | Failed | TimedOut | Lost) -> bool:
    """Whether the event is about an attempt that is given out now."""
    if not draft.knows(event.process):
        return False
    status = draft.status(event.process)
    return status.attempt == event.attempt and status.given_out


def _undecided(draft: Draft, process: str, attempt: int) -> bool:
    return attempt == 0 and draft.knows(process) and draft.status(process).awaits is Awaits.DECISION


def _timer(draft: Draft, timer: Timer) -> None:
    if not draft.knows(timer.process) or draft.status(timer.process).attempt != timer.attempt:
        return
    status = draft.status(timer.process)
    match timer.kind:
        case TimerKind.WAIT if status.awaits is Awaits.EXECUTOR:
            lifecycle.unwanted(draft, timer.process)
        case TimerKind.EXECUTION if status.state is ProcessState.RUNNING:
            lifecycle.expired(draft, timer.process, stop=True)
        case TimerKind.RETRY if status.awaits is Awaits.RETRY:
            lifecycle.retry(draft, timer.process)
