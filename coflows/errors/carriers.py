"""What bytes, broker and store refuse."""

from __future__ import annotations

from coflows.errors.base import CoflowsError


class EnvelopeError(CoflowsError):
    """Sealed bytes that do not open, or are not for us."""

    code = "envelope"
    exit_code = 8


class CertificateError(EnvelopeError):
    """A certificate that is malformed, or not signed by its user."""

    code = "certificate"


class KeyRetiredError(EnvelopeError):
    """Sealed with or for a key that its user has given up."""

    code = "key_retired"


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


class AccountExistsError(BrokerError):
    """The user has an account on the broker already."""

    code = "account_exists"
    exit_code = 2


class AccountNotFoundError(BrokerError):
    """The user has no account on the broker."""

    code = "account_not_found"
    exit_code = 7


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
