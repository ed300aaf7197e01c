"""What is submitted: functions with their arguments, limits and dependencies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field, ValidationError

from coflows.codec import code as code_codec
from coflows.codec.wire import encode
from coflows.errors import SerializationError, WorkflowInvalidError
from coflows.identity.keys import Identity, verify
from coflows.model.closed import Closed, problems
from coflows.shown import in_one_line
from coflows.workflow.colonies.places import check_colony
from coflows.workflow.graph.process import Need, Policy, ProcessSpec

MAX_PROCESSES = 100_000
MAX_PART = 5000
"""How many specs go into one message."""


class Conditions(Closed):
    """When a function may run: after ``dependencies``, names of others of its workflow, whose outputs are its first
    arguments in this order. Of ``optional`` ones, which come last, it gets None when they fail."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    dependencies: list[str] = Field(default_factory=list)
    optional: list[str] = Field(default_factory=list)


class Expansion(Closed):
    """What a step of a FlowSpec is besides a function: see ``ProcessSpec``. Its inputs are each one argument."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    group: bool = False
    repetitions: int = Field(default=1, ge=0)
    foreach: bool = False
    each: list[str] = Field(default_factory=list)
    """Of which dependencies there is one child for each item."""
    condition: str | None = None
    """The dependency whose output says whether it is to run, and is no input."""
    blind: bool = False
    """It is given no inputs."""


class FunctionSpec(Closed):
    """One function of a workflow; make it with ``func_spec``."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True)
    funcname: str = Field(min_length=1, max_length=200)
    nodename: str = Field(min_length=1, max_length=200)
    args: list[Any] = Field(default_factory=list)
    kwargs: dict[str, Any] = Field(default_factory=dict)
    colonyname: str = ""
    executortype: str = ""
    maxexectime: float = -1
    maxwaittime: float = -1
    maxretries: int = Field(0, ge=0, le=1000)
    priority: int = 0
    backoff: float = Field(0, ge=0)
    code: bytes | str | None = None
    """The function itself, pickled, or its source; only for executors that trust who signed it."""
    code_by: str | None = None
    signature: bytes | None = None
    conditions: Conditions = Field(default_factory=Conditions)
    expansion: Expansion | None = None

    def process(self, *, alone: bool = False) -> ProcessSpec:
        """The process that it is in a graph; ``alone``: what it needs comes of where it is added."""
        more = self.expansion or Expansion()
        needs = [Need(name, True, name in more.each) for name in self.conditions.dependencies]
        needs += [Need(name, False, name in more.each) for name in self.conditions.optional]
        policy = Policy(self.maxretries, self.maxexectime, self.maxwaittime, self.priority, self.backoff)
        return ProcessSpec(
            self.nodename,
            () if alone else tuple(needs),
            policy,
            self.executortype,
            more.group,
            more.repetitions,
            more.foreach,
            more.condition is not None,
        )

    def signed(self, identity: Identity, owner: str, colony: str) -> FunctionSpec:
        """The same for a colony of ``owner``'s, its code signed by the user."""
        changed: dict[str, Any] = {"colonyname": colony}
        if self.code is not None:
            signature = identity.sign(_signed_part(owner, colony, self.funcname, self.code))
            changed |= {"code_by": identity.user_id, "signature": signature}
        return self.model_copy(update=changed)

    def is_signed(self, owner: str, colony: str) -> bool:
        """Whether ``code_by`` has shipped this code to this colony under this name."""
        if self.code is None or self.code_by is None or self.signature is None:
            return False
        return verify(self.code_by, _signed_part(owner, colony, self.funcname, self.code), self.signature)

    def to_dict(self) -> dict[str, Any]:
        """A msgpack-able dict, without what is as by default; ``read_spec`` reads it back."""
        return self.model_dump(exclude_defaults=True)


def _signed_part(owner: str, colony: str, funcname: str, code: bytes | str) -> bytes:
    body = code.encode() if isinstance(code, str) else code
    return b"coflows/code/1\0" + "\0".join((owner, colony, funcname, type(code).__name__)).encode() + b"\0" + body


class Workflow:
    """Functions that are to be submitted together: append to ``functionspecs``. ``fail_fast``: the first failure that
    nobody makes up for cancels the rest."""

    def __init__(self, colonyname: str, *, fail_fast: bool = False, max_step_inputs: int = 100_000) -> None:
        self.colonyname = check_colony(colonyname)
        self.functionspecs: list[FunctionSpec] = []
        self.fail_fast = fail_fast
        self.max_step_inputs = max_step_inputs

    def __repr__(self) -> str:
        return f"<Workflow of {len(self.functionspecs)} functions in {self.colonyname}>"


def func_spec(
    func: str | Callable[..., Any],
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    colonyname: str = "",
    executortype: str = "",
    maxexectime: float = -1,
    maxwaittime: float = -1,
    maxretries: int = 0,
    priority: int = 0,
    nodename: str | None = None,
    code: str | None = None,
    backoff: float = 0,
) -> FunctionSpec:
    """A function of a workflow: one that executors of this type have registered under its name, or with ``func`` itself
    or its source in ``code`` one that travels with the workflow, to executors that trust who submits it.

    ``args`` come after the outputs of what it depends on; what a function returns as a tuple is several arguments.
    ``maxexectime``: seconds that an attempt may run; ``maxwaittime``: seconds that it may wait for an executor once it
    is ready; -1 is no limit. ``maxretries``: how often it is tried again, after ``backoff`` seconds that double. Of
    those that become ready together the one with the highest ``priority`` is given out first. ``nodename`` (the
    function's name) is what others depend on. Raises WorkflowInvalidError or SerializationError.
    """
    shipped: bytes | str | None = code
    if callable(func):
        name = str(getattr(func, "__name__", type(func).__name__))
        if code is None:
            try:
                shipped = code_codec.dumps(func)
            except Exception as error:  # pickling runs the objects' own code, which may raise anything
                raise SerializationError(
                    f"Function {nodename or name} cannot be sent: {error}.",
                    hint="Open connections, locks and files in it: what it takes from outside travels with it.",
                ) from error
    else:
        name = func
    fields = {
        "funcname": name,
        "nodename": name if nodename is None else nodename,
        "args": list(args),
        "kwargs": dict(kwargs or {}),
        "colonyname": colonyname,
        "executortype": executortype,
        "maxexectime": maxexectime,
        "maxwaittime": maxwaittime,
        "maxretries": maxretries,
        "priority": priority,
        "backoff": backoff,
        "code": shipped,
    }
    return _checked(fields)


def read_spec(value: object) -> FunctionSpec:
    """Check and build; raises WorkflowInvalidError. Safe on data from other users."""
    return _checked(value)


def read_specs(values: object) -> list[FunctionSpec]:
    """Check and build those of a submission; raises WorkflowInvalidError. Safe on data from other users."""
    if not isinstance(values, list) or not 0 < len(values) <= MAX_PROCESSES:
        raise WorkflowInvalidError("The workflow has no functions.", hint="Append func_spec(...) to functionspecs.")
    return [_checked(value) for value in values]


def parts_of(specs: Sequence[Mapping[str, Any]], limit: int) -> list[list[Mapping[str, Any]]]:
    """Specs as ``to_dict`` gives them, in parts of up to ``limit`` bytes each and at least one spec; at least one
    part. Raises SerializationError."""
    parts: list[list[Mapping[str, Any]]] = [[]]
    left = limit
    for spec in specs:
        size = len(encode(spec))
        if parts[-1] and (size > left or len(parts[-1]) >= MAX_PART):
            parts.append([])
            left = limit
        parts[-1].append(spec)
        left -= size
    return parts


def _checked(value: object) -> FunctionSpec:
    try:
        spec = FunctionSpec.model_validate(value)
    except ValidationError as error:
        where, what, kind = problems(error)[0]
        name = value.get("nodename") or value.get("funcname") if isinstance(value, Mapping) else None
        step = f"Step {in_one_line(str(name or '?'), 100)}"
        if kind == "extra_forbidden":
            fields = Conditions.model_fields if "." in where else FunctionSpec.model_fields
            hint = f"There is {', '.join(fields)}."
            raise WorkflowInvalidError(f"{step}: {where[:100]} is not known.", hint=hint) from error
        raise WorkflowInvalidError(f"{step}: {where + ': ' if where else ''}{what}.") from error
    if not spec.executortype:
        raise WorkflowInvalidError(
            f"Step {in_one_line(spec.nodename, 100)} has no executortype.",
            hint="Say of which type executors run it: what their --type is, for instance python.",
        )
    check_colony(spec.executortype, f"Step {in_one_line(spec.nodename, 100)}: executor type")
    return spec
