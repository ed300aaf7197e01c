"""What becomes of one process: ready, given out, tried again, over; and what its end means for those that need it."""

from __future__ import annotations

from collections import deque

from coflows.workflow.graph.commands import ClearTimer, Decide, End, SetTimer, Start, Stop, Timer, TimerKind
from coflows.workflow.graph.draft import Draft
from coflows.workflow.graph.growth import expand
from coflows.workflow.graph.process import MAX_LOSSES, Status, parse_child, replaced
from coflows.workflow.graph.states import GRAPH_ENDED, UNDELIVERED, Awaits, GraphState, ProcessState

MISSING_LIST = "a foreach step gives a list"


def settle(draft: Draft) -> None:
    """Look at every process that has become ready, then at whether the graph is over."""
    while draft.ready:
        process = draft.ready.popleft()
        status = draft.status(process)
        if status.ended:
            continue
        if draft.spec(process).conditional and status.awaits is Awaits.PARENTS:
            draft.set(process, awaits=Awaits.DECISION)
            draft.commands.append(Decide(process))
        else:
            begin(draft, process)
    head = draft.head
    if head.open or head.state in GRAPH_ENDED:
        return
    state = GraphState.CANCELLED if head.cancelled else GraphState.FAILED if head.failures else GraphState.SUCCESS
    draft.head = replaced(head, state=state, ended_at=draft.at)
    draft.commands.append(End(state))


def begin(draft: Draft, process: str) -> None:
    """A process that has all it needs: a group grows its children, any other is given out."""
    spec = draft.spec(process)
    if not spec.group or process != spec.name:
        give_out(draft, process)
        return
    count = expand(draft, process)
    if count > draft.head.max_step_inputs:
        allowed = (
            f"at most {draft.head.max_step_inputs} are allowed; conf=Configuration(max_step_inputs={count}) raises it"
        )
        reason = f"it has {count} inputs; {allowed}"
        end(draft, process, ProcessState.FAILED, reason=reason)
        return
    draft.set(
        process,
        state=ProcessState.RUNNING,
        awaits=Awaits.NOTHING,
        pending=count,
        children=count,
        size=0 if spec.foreach else count,
        started_at=draft.at,
    )
    draft.grow(process, count)
    if not count:
        end(draft, process, ProcessState.SUCCESS)
        return
    for child in range(count):
        give_out(draft, f"{process}[{child}]")


def give_out(draft: Draft, process: str) -> None:
    """Ask for the next attempt."""
    spec, status = draft.spec(process), draft.status(process)
    attempt, policy = status.attempt + 1, spec.policy
    draft.set(process, state=ProcessState.WAITING, awaits=Awaits.EXECUTOR, attempt=attempt, ready_at=draft.at)
    draft.commands.append(Start(process, attempt, spec.executortype, policy.priority))
    if policy.maxwaittime >= 0:
        draft.commands.append(SetTimer(Timer(process, attempt, TimerKind.WAIT), draft.at + policy.maxwaittime))


def started(draft: Draft, process: str) -> None:
    """Somebody runs the attempt that was given out."""
    status, policy = draft.status(process), draft.spec(process).policy
    _clear_timers(draft, process, status)
    draft.set(process, state=ProcessState.RUNNING, awaits=Awaits.NOTHING, started_at=draft.at)
    if policy.maxexectime >= 0:
        timer = Timer(process, status.attempt, TimerKind.EXECUTION)
        draft.commands.append(SetTimer(timer, draft.at + policy.maxexectime))
    if draft.head.state is GraphState.WAITING:
        draft.head = replaced(draft.head, state=GraphState.RUNNING, started_at=draft.at)


def succeeded(draft: Draft, process: str, items: int | None) -> None:
    """The attempt gave its output."""
    if not draft.spec(process).foreach:
        end(draft, process, ProcessState.SUCCESS)
    elif items is None:
        failed(draft, process, MISSING_LIST, retry=False)
    else:
        end(draft, process, ProcessState.SUCCESS, size=items)


def failed(draft: Draft, process: str, reason: str, *, retry: bool) -> None:
    """The attempt came to nothing; try again if that is left."""
    status, policy = draft.status(process), draft.spec(process).policy
    if not retry or status.retries >= policy.maxretries:
        end(draft, process, ProcessState.FAILED, reason=reason)
        return
    _clear_timers(draft, process, status)
    retries = status.retries + 1
    due = draft.at + policy.delay(retries)
    draft.set(process, retries=retries, reason=reason)
    if due <= draft.at:
        give_out(draft, process)
        return
    draft.set(process, state=ProcessState.WAITING, awaits=Awaits.RETRY, ready_at=due)
    draft.commands.append(SetTimer(Timer(process, status.attempt, TimerKind.RETRY), due))


def retry(draft: Draft, process: str) -> None:
    """The wait before the next attempt is over."""
    _clear_timers(draft, process, draft.status(process))
    give_out(draft, process)


def expired(draft: Draft, process: str, *, stop: bool = False) -> None:
    """The attempt took too long; ``stop``: and runs still."""
    if stop:
        draft.commands.append(Stop(process, draft.status(process).attempt))
    limit = draft.spec(process).policy.maxexectime
    failed(draft, process, f"it ran for longer than {limit:g} s (maxexectime)", retry=True)


def unwanted(draft: Draft, process: str) -> None:
    """Nobody began the attempt in time. No retry: what nobody takes is not taken the better for being offered again."""
    spec, status = draft.spec(process), draft.status(process)
    draft.commands.append(Stop(process, status.attempt))
    who = f"executor of type {spec.executortype}" if spec.executortype else "executor"
    reason = f"no {who} took it within {spec.policy.maxwaittime:g} s (maxwaittime)"
    end(draft, process, ProcessState.FAILED, reason=reason)


def lost(draft: Draft, process: str) -> None:
    """The attempt's executor is gone."""
    status = draft.status(process)
    if status.losses >= MAX_LOSSES:
        reason = f"{status.losses + 1} executors were lost over it"
        end(draft, process, ProcessState.FAILED, reason=reason)
        return
    _clear_timers(draft, process, status)
    draft.set(process, losses=status.losses + 1)
    give_out(draft, process)


def cancel(draft: Draft, process: str) -> None:
    """Stop a process; a group with its children."""
    names = [process, *(f"{process}[{index}]" for index in range(draft.status(process).children))]
    for name in names:
        end(draft, name, ProcessState.CANCELLED)


def end(draft: Draft, process: str, state: ProcessState, *, reason: str = "", size: int | None = None) -> None:
    """A process is over, and so is all that requires what it does not deliver. What has now all that it needs becomes
    ready. No recursion: a chain may be long."""
    # In a graph that is cancelled, all that is not over is cancelled, whoever comes first.
    below_state = ProcessState.CANCELLED if draft.head.cancelled else ProcessState.UPSTREAM_FAILED
    over = deque([(process, state, reason, process if state is ProcessState.FAILED else "")])
    while over:
        name, state, reason, blame = over.popleft()
        status = draft.status(name)
        if status.ended:
            continue
        _clear_timers(draft, name, status)
        if state is ProcessState.CANCELLED and status.given_out:
            draft.commands.append(Stop(name, status.attempt))
        if name != process or size is None:
            size = status.size
        status = draft.set(
            name, state=state, awaits=Awaits.NOTHING, ended_at=draft.at, reason=reason, blame=blame, size=size
        )
        undelivered = state in UNDELIVERED
        draft.head = replaced(draft.head, open=draft.head.open - 1)
        needed = False
        for _, dependent in draft.dependents(name):
            needed = True
            below = draft.status(dependent.process)
            if below.ended:
                continue
            if undelivered and parse_child(name) is not None:
                over.append((dependent.process, state, reason, blame or name))  # A group is as its children are.
            elif undelivered and dependent.required:
                over.append((dependent.process, below_state, f"{name} did not deliver", blame or name))
            else:
                _one_less(draft, dependent.process, below, status)
        if undelivered and not needed:
            head = draft.head
            draft.head = replaced(head, failures=head.failures + 1, blame=head.blame or blame or name)


def _one_less(draft: Draft, process: str, status: Status, parent: Status) -> None:
    """One of those that ``process`` waits for is over."""
    pending = status.pending - 1
    if status.state is not ProcessState.RUNNING:
        draft.set(process, pending=pending)
        if not pending:
            draft.ready.append(process)
        return
    size = status.size or 0
    draft.set(process, pending=pending, size=size + (parent.size or 0) if draft.spec(process).foreach else size)
    if not pending:
        end(draft, process, ProcessState.SUCCESS)


def _clear_timers(draft: Draft, process: str, status: Status) -> None:
    """Clear what was set for the current attempt."""
    policy = draft.spec(process).policy
    kind: TimerKind | None = None
    if status.awaits is Awaits.EXECUTOR and policy.maxwaittime >= 0:
        kind = TimerKind.WAIT
    elif status.state is ProcessState.RUNNING and status.attempt and policy.maxexectime >= 0:
        kind = TimerKind.EXECUTION
    elif status.awaits is Awaits.RETRY:
        kind = TimerKind.RETRY
    if kind is not None:
        draft.commands.append(ClearTimer(Timer(process, status.attempt, kind)))
