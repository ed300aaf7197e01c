"""The decorators with which steps of a FlowSpec are written, and what they note."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, overload

from coflows.errors import WorkflowInvalidError
from coflows.workflow.graph.process import Policy

Function = TypeVar("Function", bound=Callable[..., Any])
Predecessor = Callable[..., Any] | str


@dataclass(frozen=True, slots=True)
class Remote:
    """Which served flow a step is."""

    flow_endpoint: str
    user_id: str
    config_overrides: Mapping[str, Any] | None
    timeout: float | None


@dataclass(eq=False, slots=True)
class Step:
    """What the decorators of one function say. It is on the function as ``function.step``."""

    function: Callable[..., Any]
    decorated: bool = False
    """Whether ``@step`` was among the decorators."""
    policy: Policy = field(default_factory=Policy)
    runs_in: Literal["thread", "process"] = "thread"
    executortype: str = ""
    needs: tuple[tuple[Step | str, bool], ...] | None = None
    """The predecessors, and whether each is required; None without ``@needs``."""
    condition: Callable[..., object] | None = None
    repetitions: int | None = None
    foreach: bool = False
    join: bool = False
    remote: Remote | None = None

    def get_id(self) -> str:
        """The step's name."""
        return str(getattr(self.function, "__name__", "step"))

    def skip(self) -> bool:
        """Whether its condition says no. A condition may take the step, or nothing."""
        if self.condition is None:
            return False
        wanted = self.condition(self) if parameter_names(self.condition) else self.condition()
        return not wanted

    @property
    def is_async(self) -> bool:
        """Whether it runs on the event loop."""
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    def __repr__(self) -> str:
        return f"Step({self.get_id()})"


def definition_of(function: object, where: str) -> Step:
    """The step that a function is; raises WorkflowInvalidError that names it when it is none."""
    noted = getattr(function, "step", None)
    if not isinstance(noted, Step) or not noted.decorated:
        name = getattr(function, "__name__", repr(function))
        raise WorkflowInvalidError(f"{where}: {name} is no step.", hint=f"Put @step above def {name}.")
    return noted


@overload
def step(function: Function) -> Function: ...
@overload
def step(
    *,
    maxretries: int = ...,
    backoff: float = ...,
    maxexectime: float = ...,
    maxwaittime: float = ...,
    priority: int = ...,
    runs_in: Literal["thread", "process"] = ...,
    executortype: str = ...,
) -> Callable[[Function], Function]: ...
def step(
    function: Function | None = None,
    *,
    maxretries: int = 0,
    backoff: float = 0,
    maxexectime: float = -1,
    maxwaittime: float = -1,
    priority: int = 0,
    runs_in: Literal["thread", "process"] = "thread",
    executortype: str = "",
) -> Any:
    """A function or method is a step; ``@step``, or ``@step(maxretries=2, ...)``.

    ``maxretries``: how often it is tried again, after waits of ``backoff`` seconds that double. ``maxexectime``: how
    many seconds an attempt may run; one in a process (``runs_in="process"``) is really ended then, one in a thread runs
    on unheard. ``maxwaittime``: how many seconds it may wait to be begun, from when it is ready. -1 is no limit. Of
    those that are ready the one with the highest ``priority`` is begun first. ``executortype``: which executors take
    it, in a run on executors. An ``async def`` runs on an event loop. A step without parameters is called without its
    inputs.
    """
    if runs_in not in ("thread", "process"):
        raise WorkflowInvalidError(f"A step runs in a thread or a process, not in {runs_in!r}.")

    def decorate(function: Function) -> Function:
        noted = _noted(function)
        noted.decorated = True
        noted.policy = Policy(maxretries, maxexectime, maxwaittime, priority, backoff)
        noted.runs_in, noted.executortype = runs_in, executortype
        return function

    return decorate if function is None else decorate(function)


def needs(
    predecessors: Sequence[Predecessor] = (), *, optional: Sequence[Predecessor] = ()
) -> Callable[[Function], Function]:
    """The step comes after these (functions, or names of steps written further down); their outputs are its inputs,
    in this order. Of ``optional`` ones, which come last, it gets None when they fail."""
    for given in (predecessors, optional):
        if callable(given) or isinstance(given, str):
            raise WorkflowInvalidError(f"@needs got {given!r}, not a list.", hint="Write @needs(predecessors=[...]).")

    def decorate(function: Function) -> Function:
        where = f"Step {function.__name__} needs a step"
        names = [(one, required) for group, required in ((predecessors, True), (optional, False)) for one in group]
        _noted(function).needs = tuple(
            (one if isinstance(one, str) else definition_of(one, where), required) for one, required in names
        )
        return function

    return decorate


def optional(condition: Callable[..., object]) -> Callable[[Function], Function]:
    """The step runs when ``condition(step)`` is true; it is asked when the step is ready. Else the step is SKIPPED,
    and those after it get None."""
    if not callable(condition):
        raise WorkflowInvalidError(f"The condition {condition!r} cannot be called.", hint="Give a function.")
    return _decorator(condition=condition)


def repeat(repetitions: int) -> Callable[[Function], Function]:
    """The step runs so many times on the same inputs; those after it get the list of what it gave."""
    if not isinstance(repetitions, int) or isinstance(repetitions, bool) or repetitions < 0:
        raise WorkflowInvalidError(f"repetitions is {repetitions!r}.", hint="Give a number from 0 on.")
    return _decorator(repetitions=repetitions)


def foreach(function: Function | None = None) -> Any:
    """``@foreach()``: the step returns a list; those after it run once for each item, and after several such steps once
    for each combination, the last one's items varying fastest."""
    return _decorator(foreach=True) if function is None else _decorator(foreach=True)(function)


def join(function: Function | None = None) -> Any:
    """``@join()``: the step gets one list: what its predecessors gave, item by item, in order."""
    return _decorator(join=True) if function is None else _decorator(join=True)(function)


def remote(
    flow_endpoint: str,
    user_id: str = "local",
    *,
    config_overrides: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Callable[[Function], Function]:
    """The step is a flow that somebody serves; the FlowSpec is given a ``client``. The flow is sent the step's input, a
    dict, or the dict that the step's function makes of its inputs; its reply is the output. ``timeout``: seconds that
    an attempt waits for the reply."""
    return _decorator(remote=Remote(flow_endpoint, user_id, config_overrides, timeout))


def _decorator(**notes: Any) -> Callable[[Function], Function]:
    def decorate(function: Function) -> Function:
        if not callable(function):
            raise WorkflowInvalidError(f"{function!r} is no function.", hint="Write the decorator with parentheses.")
        noted = _noted(function)
        for name, value in notes.items():
            setattr(noted, name, value)
        return function

    return decorate


def _noted(function: Any) -> Step:
    """What is noted on a function. A method's is that of its function."""
    target = getattr(function, "__func__", function)
    noted = getattr(target, "step", None)
    if not isinstance(noted, Step):
        noted = Step(target)
        target.step = noted
        target.is_step = True
    return noted


def parameter_names(function: Callable[..., Any]) -> list[str]:
    """The positional parameters of a function; one without a name when nobody can tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return [""]
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
    return [one.name for one in parameters if one.kind not in named]
