"""What becomes of a fetch or a call instead of an instance or a reply."""

from __future__ import annotations

from coflows.errors.base import CoflowsError


class EndpointNotFoundError(CoflowsError):
    """This user serves nothing under that name."""

    code = "endpoint_not_found"
    exit_code = 7


class UnknownUserError(CoflowsError):
    """No user with this id has a door on this broker."""

    code = "unknown_user"
    exit_code = 7


class OtherBrokerError(UnknownUserError):
    """The user has no door on this broker; his node says that he is on another one."""

    code = "other_broker"


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


class QuotaExceededError(CoflowsError):
    """The owner gives a caller only so much, and this is more: it was not worked off. ``retry_after`` says when it may
    be asked again."""

    code = "quota_exceeded"
    exit_code = 13


class TurnTimeExceededError(QuotaExceededError, TimeoutError):
    """The turn took longer than its caller may have one take; nothing of it was kept."""

    code = "turn_time_exceeded"


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
