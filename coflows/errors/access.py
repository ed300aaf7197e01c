"""Why a grant is not taken, or a chain of calls not followed."""

from __future__ import annotations

from coflows.errors.base import CoflowsError
from coflows.errors.calls import AccessDeniedError, CallTimeoutError


class GrantError(AccessDeniedError):
    """A grant that was not made by the owner for this, or was changed, or gives more than the one it was made from."""

    code = "grant_invalid"


class GrantExpiredError(GrantError):
    """Its time is over."""

    code = "grant_expired"


class GrantRevokedError(GrantError):
    """The owner took it back, or one that it was made from."""

    code = "grant_revoked"


class GrantSpentError(GrantError):
    """Its budget of calls, instances or bytes is used up, or that of one that it was made from."""

    code = "grant_spent"


class CallChainError(CoflowsError):
    """The chain that a call carries is one that its sender cannot vouch for."""

    code = "call_chain"
    exit_code = 7


class CallCycleError(CallChainError):
    """The call went through this instance already; the text shows the circle."""

    code = "call_cycle"


class CallDepthError(CallChainError):
    """The call went through too many instances."""

    code = "call_depth"


class CallBudgetError(CallChainError):
    """The call's budget of further calls is used up."""

    code = "call_budget"


class CallExpiredError(CallTimeoutError):
    """The call came after the deadline that its chain carries."""

    code = "call_expired"
