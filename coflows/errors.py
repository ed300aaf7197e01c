"""One tree of errors; each class has a stable code, and each message says what, where and what to do next.

CoflowsError
|-- ConfigurationError            a setting, URL or file of the user's own is wrong
|-- NameInvalidError              a user id, endpoint or other name is outside its grammar
|-- IdentityError                 a user's keys
|   |-- UserNotFoundError
|   `-- UserExistsError
|-- EnvelopeError                 sealed bytes that do not open, or not for us
|-- SerializationError            data that cannot be encoded, or bytes that cannot be decoded
|-- MessageTooLargeError
|-- BrokerError
|   |-- BrokerUnavailableError    nothing answers at the URL
|   |-- BrokerAuthError           credentials refused
|   |-- QueueMismatchError        the queue exists with other arguments
|   `-- UnroutableError           no such queue; nothing was kept
|-- StoreError
|   |-- StoreUnavailableError
|   |-- StoreLockedError
|   |-- StoreReadOnlyError
|   `-- ConflictError             a commit's condition did not hold; nothing was written
|-- FlowError
|   |-- FlowClassError            a class that does not import, or is no Flow
|   |-- FlowConfigError           a config that does not parse or validate
|   |-- EndpointTakenError        the endpoint serves another class, or the same one otherwise
|   `-- FlowTimeoutError          a flow or task did not end in time (also a TimeoutError)
|-- ExecutionError                a task in a pool
|   |-- PoolClosedError
|   |-- TaskError                 it raised something that cannot be sent as it is
|   `-- WorkerDiedError           its worker process died over it
|       `-- WorkerMemoryError     of want of memory (also a MemoryError)
|-- WorkflowError
|   |-- WorkflowInvalidError      steps that make no graph
|   |-- WorkflowFailedError       a step failed (also a RuntimeError)
|   `-- WorkflowCancelledError    somebody cancelled the run (also a RuntimeError)
|-- EndpointNotFoundError         this user serves nothing under that name
|-- UnknownUserError              no user with this id has a door on this broker
|-- InstanceNotFoundError         no such instance, or it was deleted
|-- FlowInstanceError             a tree of instances could not be fetched; names the chain
|   `-- FlowCycleError            the tree contains itself
|-- AccessDeniedError
|-- RemoteFlowError               the flow that was called raised
|-- PoisonMessageError            workers died over the message; it was given up
|-- DeadLetterNotFoundError
|-- OutOfOrderError               later messages of the same sender were worked off already
|-- CallTimeoutError              no reply by the deadline (also a TimeoutError)
`-- CallCancelledError            the caller cancelled the future
"""

from __future__ import annotations

from typing import Any, ClassVar


class CoflowsError(Exception):
    """Root of all errors that coflows raises.

    ``code`` is stable across releases and is what travels to other users; ``hint`` says what to do next.
    ``str(error)`` is ``"what and where. hint"``.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (type(self), self.args, self.__dict__)


def _remade(kind: type[CoflowsError], args: tuple[Any, ...], attributes: dict[str, Any]) -> CoflowsError:
    """An error that was pickled, with all that it knew."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class ConfigurationError(CoflowsError):
    """A setting, URL or file of the user's own is wrong."""

    code = "configuration"
    exit_code = 2


class NameInvalidError(CoflowsError, ValueError):
    """A user id, endpoint or other name is outside its grammar."""

    code = "name_invalid"
    exit_code = 2


class IdentityError(CoflowsError):
    """A user's keys cannot be used."""

    code = "identity"
    exit_code = 3


class UserNotFoundError(IdentityError):
    """No user of that name has keys in this home."""

    code = "user_not_found"


class UserExistsError(IdentityError):
    """A user of that name already has keys in this home."""

    code = "user_exists"


class EnvelopeError(CoflowsError):
    """Sealed bytes that do not open, or are not for us."""

    code = "envelope"
    exit_code = 8


class SerializationError(CoflowsError, ValueError):
    """Data that cannot be encoded, or bytes that cannot be decoded."""

    code = "serialization"
    exit_code = 2


class MessageTooLargeError(CoflowsError, ValueError):
    """A message over the size limit."""

    code = "message_too_large"
    exit_code = 2


class BrokerError(CoflowsError):
    """The broker could not do what was asked."""

    code = "broker"
    exit_code = 4


class BrokerUnavailableError(BrokerError):
    """Nothing answers at the broker's URL, or the connection went and did not come back in time."""

    code = "broker_unavailable"


class BrokerAuthError(BrokerError):
    """The broker refused the credentials, or the account may not do this."""

    code = "broker_auth"


class QueueMismatchError(BrokerError):
    """The queue exists with other arguments than those asked for."""

    code = "queue_mismatch"


class UnroutableError(BrokerError):
    """The queue does not exist; the message was not kept."""

    code = "unroutable"


class StoreError(CoflowsError):
    """The store could not do what was asked; nothing was written."""

    code = "store"
    exit_code = 5


class StoreUnavailableError(StoreError):
    """The store cannot be opened or does not answer."""

    code = "store_unavailable"


class StoreLockedError(StoreError):
    """Another process held the store for longer than the wait allows."""

    code = "store_locked"


class StoreReadOnlyError(StoreError):
    """The store's file or folder may not be written."""

    code = "store_read_only"


class ConflictError(StoreError):
    """A commit's condition did not hold; nothing was written. ``keys`` names those that had changed."""

    code = "conflict"

    def __init__(self, message: str, *, keys: tuple[str, ...] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.keys = keys


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


class EndpointTakenError(FlowError):
    """The endpoint serves another class, or the same one otherwise; nothing was changed."""

    code = "endpoint_taken"


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


class EndpointNotFoundError(CoflowsError):
    """This user serves nothing under that name."""

    code = "endpoint_not_found"
    exit_code = 7


class UnknownUserError(CoflowsError):
    """No user with this id has a door on this broker."""

    code = "unknown_user"
    exit_code = 7


class InstanceNotFoundError(CoflowsError):
    """No such instance, or it was deleted."""

    code = "instance_not_found"
    exit_code = 7


class FlowInstanceError(CoflowsError):
    """A tree of instances could not be fetched; the text names the chain of subflows that led there."""

    code = "flow_instance"
    exit_code = 7


class FlowCycleError(FlowInstanceError):
    """The tree contains itself."""

    code = "flow_cycle"


class AccessDeniedError(CoflowsError):
    """The owner does not allow this."""

    code = "access_denied"
    exit_code = 8


class RemoteFlowError(CoflowsError):
    """The flow that was called raised.

    ``error_type`` and ``error_text`` are those of the remote exception; ``remote_code`` is its code when it was a
    CoflowsError; ``remote_traceback`` is None unless the flow belongs to the caller himself.
    """

    code = "remote_flow"
    exit_code = 9

    def __init__(
        self,
        message: str,
        *,
        error_type: str = "",
        error_text: str = "",
        remote_code: str | None = None,
        remote_traceback: str | None = None,
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.error_type = error_type
        self.error_text = error_text
        self.remote_code = remote_code
        self.remote_traceback = remote_traceback


class CallTimeoutError(CoflowsError, TimeoutError):
    """No reply by the deadline. The call may still be worked off; the future can be reopened by its key."""

    code = "call_timeout"
    exit_code = 10


class PoisonMessageError(CoflowsError):
    """The owner's workers died over a message again and again; it lies with his dead letters."""

    code = "poison_message"
    exit_code = 9


class DeadLetterNotFoundError(CoflowsError):
    """There is no such dead letter."""

    code = "dead_letter_not_found"
    exit_code = 7


class OutOfOrderError(CoflowsError):
    """A message came after later ones of the same sender had been worked off, too late to keep the order."""

    code = "out_of_order"
    exit_code = 7


class CallCancelledError(CoflowsError):
    """The caller cancelled the future."""

    code = "call_cancelled"
    exit_code = 11
