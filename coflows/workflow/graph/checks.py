"""What processes must be to make a graph; said of the first that is not, before anything is changed."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from coflows.errors import WorkflowInvalidError
from coflows.workflow.graph.process import ProcessSpec

MAX_NAME = 200


def check_name(name: object) -> None:
    """Raise WorkflowInvalidError unless ``name`` may be a process's."""
    if not isinstance(name, str) or not name.strip():
        raise WorkflowInvalidError("A step has no name.", hint="Give every step a node name.")
    if len(name) > MAX_NAME or not name.isprintable() or not set("[]:").isdisjoint(name):
        raise WorkflowInvalidError(
            f"{name[:MAX_NAME]!r} is no name for a step.",
            hint=f"Use at most {MAX_NAME} printable characters without brackets and colons.",
        )


def check_processes(processes: Sequence[ProcessSpec], max_needs: int) -> None:
    """Raise WorkflowInvalidError when a name is missing or twice there, or a dependency unknown, twice there, the step
    itself or part of a cycle, or when a step has more than ``max_needs`` of them."""
    names: set[str] = set()
    for spec in processes:
        check_name(spec.name)
        if spec.name in names:
            raise WorkflowInvalidError(f"Two steps are named {spec.name}.", hint="Give one another node name.")
        names.add(spec.name)
    for spec in processes:
        needs = [need.process for need in spec.needs]
        check_needs(spec.name, needs, names, max_needs)
    if cycle := find_cycle({spec.name: [need.process for need in spec.needs] for spec in processes}):
        raise WorkflowInvalidError(f"The steps depend on each other in a cycle: {' -> '.join(cycle)}.")


def check_needs(name: str, needs: Sequence[str], names: Container[str], max_needs: int) -> None:
    """Raise WorkflowInvalidError unless a step may depend on ``needs``."""
    if len(needs) > max_needs:
        raise WorkflowInvalidError(f"Step {name} has {len(needs)} inputs; at most {max_needs} are allowed.")
    seen: set[str] = set()
    for need in needs:
        if need == name:
            raise WorkflowInvalidError(f"Step {name} depends on itself.", hint="Remove that dependency.")
        if need not in names:
            raise WorkflowInvalidError(
                f"Step {name} depends on {need}, which is not in the graph.", hint="Add that step, or mend the name."
            )
        if need in seen:
            raise WorkflowInvalidError(f"Step {name} depends on {need} twice.", hint="Name it once.")
        seen.add(need)


def find_cycle(needs: Mapping[str, Sequence[str]]) -> list[str]:
    """A cycle as a path in the order in which the steps would run, its first step again at the end; [] when there is
    none. Linear in steps and edges, and without recursion."""
    done: set[str] = set()
    for first in needs:
        path: list[str] = []
        on_path: set[str] = set()
        stack: list[tuple[str, bool]] = [(first, False)]
        while stack:
            name, left = stack.pop()
            if left:
                path.pop()
                on_path.discard(name)
                done.add(name)
            elif name in on_path:
                return [name, *reversed(path[path.index(name) :])]
            elif name not in done:
                path.append(name)
                on_path.add(name)
                stack.append((name, True))
                stack.extend((need, False) for need in reversed(needs.get(name, ())))
    return []
