"""How a graph comes to be and grows: processes submitted, children added while it runs, groups that expand."""

from __future__ import annotations

from coflows.errors import WorkflowInvalidError
from coflows.workflow.graph.checks import check_name, check_processes
from coflows.workflow.graph.draft import Draft
from coflows.workflow.graph.events import ChildAdded, Submitted
from coflows.workflow.graph.process import Need, parse_child, replaced
from coflows.workflow.graph.states import GRAPH_ENDED, UNDELIVERED, Awaits, ProcessState


def submit(draft: Draft, event: Submitted) -> None:
    """Put the first processes into an empty graph."""
    if draft.head.submitted_at or draft.head.next_seq:
        raise WorkflowInvalidError("The graph was submitted already.", hint="Submit another one, or add children.")
    check_processes(event.processes, event.max_needs)
    draft.head = replaced(
        draft.head, submitted_at=event.at, max_step_inputs=event.max_step_inputs, max_needs=event.max_needs
    )
    for spec in event.processes:
        draft.add(spec)
    for spec in event.processes:
        for need in spec.needs:
            draft.connect(spec.name, need)
        if not spec.needs:
            draft.ready.append(spec.name)


def add_child(draft: Draft, event: ChildAdded) -> None:
    """Put a process below another, and above or beside what is below that."""
    spec, parent, child = event.spec, event.parent, event.child
    check_name(spec.name)
    where = f"Cannot add {spec.name} below {parent}"
    if draft.head.state in GRAPH_ENDED:
        raise WorkflowInvalidError(f"{where}: the graph is over.", hint="Add children while a step is running.")
    if draft.knows(spec.name):
        if draft.spec(spec.name) == spec and any(need.process == parent for _, need in draft.parents(spec.name)):
            return  # A step that is run again adds its children again.
        raise WorkflowInvalidError(f"{where}: there is a {spec.name} already.", hint="Give it another name.")
    if spec.needs:
        raise WorkflowInvalidError(f"{where}: its needs come of where it is added.", hint="Leave them out.")
    for name in (parent, child):
        if name is not None and (not draft.knows(name) or parse_child(name) is not None):
            raise WorkflowInvalidError(f"{where}: there is no {name}.", hint="Name a process of this graph.")
    if draft.status(parent).state in UNDELIVERED:
        raise WorkflowInvalidError(f"{where}: {parent} is {draft.status(parent).state}.")
    if child is not None:
        _check_child(draft, where, event, child)
    draft.add(spec)
    draft.connect(spec.name, Need(parent))
    if child is not None:
        if event.insert:
            draft.disconnect(child, parent)
        draft.connect(child, Need(spec.name))
    if not draft.status(spec.name).pending:
        draft.ready.append(spec.name)


def _check_child(draft: Draft, where: str, event: ChildAdded, child: str) -> None:
    status = draft.status(child)
    if status.state in (ProcessState.UPSTREAM_FAILED, ProcessState.CANCELLED):
        return  # It will not run; whether that was known before the child came is chance, and makes no difference.
    if status.state is not ProcessState.WAITING or status.awaits is not Awaits.PARENTS:
        raise WorkflowInvalidError(f"{where}: {child} was given out already.", hint="Add it while its parents run.")
    if status.needs >= draft.head.max_needs:
        raise WorkflowInvalidError(f"{where}: {child} has {status.needs} inputs, as many as are allowed.")
    # Whoever has begun, or is over, needs nothing that waits: only a parent that waits itself may be below the child.
    if draft.status(event.parent).awaits is Awaits.PARENTS and (path := _path(draft, child, event.parent)):
        cycle = " -> ".join([*path, event.spec.name, child])
        raise WorkflowInvalidError(f"{where}: that makes a cycle: {cycle}.")
    if event.insert and all(need.process != event.parent for _, need in draft.parents(child)):
        raise WorkflowInvalidError(
            f"{where}: {child} does not depend on {event.parent}.", hint="Without insert it is added all the same."
        )


def _path(draft: Draft, top: str, bottom: str) -> list[str]:
    """A way down from ``top`` to ``bottom``, [] when there is none; found by going up."""
    below = {bottom: ""}
    up = [bottom]
    while up:
        name = up.pop()
        if name == top:
            path = [name]
            while path[-1] != bottom:
                path.append(below[path[-1]])
            return path
        for _, need in draft.parents(name):
            if need.process not in below:
                below[need.process] = name
                up.append(need.process)
    return []


def expand(draft: Draft, group: str) -> int:
    """How many children a group grows, now that its parents are over."""
    count = max(draft.spec(group).repetitions, 0)
    for _, need in draft.parents(group):
        items = draft.status(need.process).items if need.each else None
        if items is not None:
            count *= items
    return count
