"""The root of all errors, and what is wrong with a user's own settings, names and keys."""

from __future__ import annotations

from typing import Any, ClassVar


class CoflowsError(Exception):
    """Root of all errors that coflows raises.

    ``code`` is stable across releases and is what travels to other users; ``hint`` says what to do next.
    ``str(error)`` is ``"what and where. hint"``. ``retry_after``: seconds after which the same may succeed, None when
    that is not known.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retry_after: float | None = None

    def __init__(self, message: str, *, hint: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint
        if retry_after is not None:
            self.retry_after = retry_after

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


class PassphraseError(IdentityError):
    """A user's keys are under a passphrase, which is missing or another one."""

    code = "passphrase"


class UserExistsError(IdentityError):
    """A user of that name already has keys in this home."""

    code = "user_exists"
