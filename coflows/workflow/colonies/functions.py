"""Which function an executor runs for a step, and with which arguments."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Collection, Sequence
from typing import Any

from coflows.codec import code as code_codec
from coflows.errors import AccessDeniedError, WorkflowError
from coflows.workflow.colonies.function_spec import FunctionSpec
from coflows.workflow.colonies.process_graph import restored

Function = Callable[..., Any]
MAX_SHIPPED = 256


class Functions:
    """Those that were registered by name, and those that came with workflows of trusted users. Thread-safe."""

    def __init__(self, owner: str, colony: str, trusted: Collection[str]) -> None:
        self._owner = owner
        self._colony = colony
        self._trusted = frozenset(trusted)
        self._registered: dict[str, Function] = {}
        self._shipped: dict[bytes, Function] = {}

    def register(self, function: Function, name: str | None = None) -> None:
        """Run this function for steps that name it."""
        self._registered[name or function.__name__] = function

    def find(self, spec: FunctionSpec) -> Function:
        """The function of a step. Raises AccessDeniedError or WorkflowError; its code is only looked at when it was
        signed by who is trusted."""
        function = self._registered.get(spec.funcname)
        if function is not None:
            return function
        if spec.code is None:
            names = ", ".join(sorted(self._registered)) or "none"
            raise WorkflowError(
                f"No function {spec.funcname} is registered here, and none came with the workflow.",
                hint=f"This executor has: {names}.",
            )
        if spec.code_by not in self._trusted:
            raise AccessDeniedError(
                f"Code of user {spec.code_by} is not run here.",
                hint="Register the function with the executor, or start it with trust=[that user's id].",
            )
        if not spec.is_signed(self._owner, self._colony):
            raise AccessDeniedError(f"The code of {spec.funcname} was not signed by user {spec.code_by}.")
        return self._load(spec)

    def _load(self, spec: FunctionSpec) -> Function:
        assert spec.code is not None
        body = spec.code.encode() if isinstance(spec.code, str) else spec.code
        mark = hashlib.blake2b(f"{type(spec.code).__name__} {spec.funcname} ".encode() + body, digest_size=16).digest()
        known = self._shipped.get(mark)
        if known is not None:
            return known
        try:
            if isinstance(spec.code, str):
                module = code_codec.load_source(spec.code, f"coflows_shipped_{spec.funcname}")
                made = getattr(module, spec.funcname, None)
            else:
                made = code_codec.loads(spec.code)
        except ModuleNotFoundError as error:
            raise WorkflowError(
                f"The code of step {spec.nodename} needs module {error.name}, which this executor does not find.",
                hint="Install it there, or start the executor where it lies.",
            ) from error
        if not callable(made):
            raise WorkflowError(f"The code of step {spec.nodename} has no function {spec.funcname}.")
        if len(self._shipped) >= MAX_SHIPPED:
            self._shipped.clear()
        function: Function = made
        self._shipped[mark] = function
        return function


def bind(function: Function, inputs: Sequence[Sequence[Any]], spec: FunctionSpec, ctx: dict[str, Any]) -> Function:
    """The call of a step: the outputs of its parents in order (a tuple is several arguments), then its own arguments.
    A parent that gave nothing gives None, or no argument where the function has no room for one. A step of a FlowSpec
    gets each output as it is. Raises TypeError."""
    if spec.expansion is not None:
        whole = [restored(one) for one in inputs]
        return _Call(function, whole, {"ctx": ctx} if getattr(function, "takes_ctx", False) else {})
    arguments: list[Any] = []
    nothing: list[int] = []
    for several, value in inputs:
        if several:
            arguments += value
            continue
        if value is None:
            nothing.append(len(arguments))
        arguments.append(value)
    keywords = dict(spec.kwargs)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return _Call(function, [*arguments, *spec.args], keywords)
    if "ctx" in signature.parameters:
        keywords["ctx"] = ctx
    try:
        signature.bind(*arguments, *spec.args, **keywords)
    except TypeError:
        if not nothing:
            raise
        arguments = [value for place, value in enumerate(arguments) if place not in nothing]
        signature.bind(*arguments, *spec.args, **keywords)
    return _Call(function, [*arguments, *spec.args], keywords)


class _Call:
    """A function with its arguments; may be sent to a worker process."""

    def __init__(self, function: Function, arguments: list[Any], keywords: dict[str, Any]) -> None:
        self._function = function
        self._arguments = arguments
        self._keywords = keywords

    def __call__(self) -> Any:
        result = self._function(*self._arguments, **self._keywords)
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result


async def _awaited(awaitable: Any) -> Any:
    return await awaitable
