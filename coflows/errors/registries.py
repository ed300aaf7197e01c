"""Errors of nodes, registries and providers, and of what they are asked."""

from __future__ import annotations

from coflows.errors.base import CoflowsError


class RegistryError(CoflowsError):
    """A node, registry or provider could not do what was asked."""

    code = "registry"
    exit_code = 12


class RegistryUnavailableError(RegistryError):
    """Nothing answers at the service's URL, or not in time."""

    code = "registry_unavailable"


class RegistryRefusedError(RegistryError):
    """The service refused. ``status`` is the HTTP status, ``reason`` the code that it gave."""

    code = "registry_refused"

    def __init__(self, message: str, *, status: int = 400, reason: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.reason = reason


class AddressRefusedError(RegistryError):
    """A URL that may not be dialled: it leads into this machine or a private network, or redirects."""

    code = "address_refused"


class FlowNotListedError(RegistryError):
    """No registry that was asked lists a flow of that name."""

    code = "flow_not_listed"
    exit_code = 7


class FlowAmbiguousError(RegistryError):
    """Several users offer a flow of that name; the text lists them."""

    code = "flow_ambiguous"
    exit_code = 7


class FlowOfflineError(RegistryError):
    """The node of who offers the flow has not been heard of lately."""

    code = "flow_offline"


class ProofInvalidError(RegistryError):
    """A registry says what the user whom it names has not signed."""

    code = "proof_invalid"
    exit_code = 8


class QueryInvalidError(CoflowsError, ValueError):
    """A query, or an order, that does not parse; ``position`` counts its characters from 0."""

    code = "query_invalid"
    exit_code = 2

    def __init__(self, message: str, *, position: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.position = position
