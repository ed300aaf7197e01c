"""What is wrong with a flow, a task of a pool or a workflow."""

from __future__ import annotations

from coflows.errors.base import CoflowsError


class FlowError(CoflowsError):
    """A flow's class or config is wrong, or what a context of flows was asked to do with it."""

    code = "flow"
    exit_code = 6


class FlowClassError(FlowError):
    """A class that does not import, or is no Flow."""

    code = "flow_class"


class FlowConfigError(FlowError):
    """A flow's config does not parse or validate."""

    code = "flow_config"


class InputInvalidError(FlowError, ValueError):
    """A message that does not fit what the flow that it was sent to takes (its ``Input``); the flow did not run."""

    code = "input_invalid"


class OutputInvalidError(FlowError, ValueError):
    """A flow's reply does not fit what it promises (its ``Output``)."""

    code = "output_invalid"


class EndpointTakenError(FlowError):
    """The endpoint serves another class, or the same one otherwise; nothing was changed."""

    code = "endpoint_taken"


class SecretExposedError(FlowError):
    """A flow was about to keep or send a secret of its worker's; nothing of the turn was kept."""

    code = "secret_exposed"


class FlowTimeoutError(FlowError, TimeoutError):
    """A flow or task did not end in time."""

    code = "flow_timeout"
    exit_code = 10


class ExecutionError(CoflowsError):
    """A task in a pool of threads or processes failed, and not by what its function raised."""

    code = "execution"
    exit_code = 6


class PoolClosedError(ExecutionError):
    """The pool was closed before the task was done."""

    code = "pool_closed"


class TaskError(ExecutionError):
    """What the function raised in a worker process cannot be sent as it is; the text tells what it was."""

    code = "task"


class WorkerDiedError(ExecutionError):
    """A worker process died over its task; other tasks are not concerned.

    ``returncode``: its exit code, negative for the signal that ended it, None when it ended itself in order.
    """

    code = "worker_died"
    returncode: int | None = None


class WorkerMemoryError(WorkerDiedError, MemoryError):
    """A task needed more memory than its worker process was given."""

    code = "worker_memory"


class WorkflowError(CoflowsError):
    """A workflow could not be built or run."""

    code = "workflow"
    exit_code = 6


class WorkflowInvalidError(WorkflowError, ValueError):
    """Steps that make no graph: a cycle, an unknown dependency, two of one name."""

    code = "workflow_invalid"


class WorkflowFailedError(WorkflowError, RuntimeError):
    """A step failed; the text names it, and the cause is chained where it is at hand."""

    code = "workflow_failed"
    exit_code = 9


class WorkflowCancelledError(WorkflowError, RuntimeError):
    """The run was cancelled."""

    code = "workflow_cancelled"
    exit_code = 11
