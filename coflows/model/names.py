"""The grammar of every name that becomes a store key or part of a queue name."""

from __future__ import annotations

import base64
import re

from coflows.errors import NameInvalidError

LOCAL = "local"
"""Stands for "the user himself" where a user id is expected."""

USER_ID_LENGTH = 52
"""32 bytes of Ed25519 public key in base32 without padding, lowercase."""

_USER_ID = re.compile(r"[a-z2-7]{51}[aq]\Z")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]|\.(?!\.)){0,63}\Z")
_USER_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}\Z")
_FLOW_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
_TOKEN = re.compile(r"[0-9a-f]{32}\Z")
_SHOWN = 80


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _check(pattern: re.Pattern[str], value: object, what: str, rule: str) -> str:
    if isinstance(value, str) and pattern.match(value):
        return value
    raise NameInvalidError(f"{what} {_shown(value)} is not valid.", hint=f"Expected {rule}.")


def check_user_id(value: object) -> str:
    """Return ``value`` when it is a user id (52 characters of lowercase base32), else raise NameInvalidError."""
    return _check(_USER_ID, value, "User id", "the 52 lowercase characters that `coflows user show` prints")


def check_endpoint(value: object) -> str:
    """Return ``value`` when it can name an endpoint, else raise NameInvalidError."""
    return _check(_NAME, value, "Endpoint name", "1 to 64 letters, digits, '_', '-' or single '.'")


def check_dispatch_point(value: object) -> str:
    """Return ``value`` when it can name a dispatch point, else raise NameInvalidError."""
    return _check(_NAME, value, "Dispatch point", "1 to 64 letters, digits, '_', '-' or single '.'")


def check_subflow_key(value: object) -> str:
    """Return ``value`` when it can name a subflow inside its composite, else raise NameInvalidError."""
    return _check(_NAME, value, "Subflow key", "1 to 64 letters, digits, '_', '-' or single '.'")


def check_user_name(value: object) -> str:
    """Return ``value`` when it can name a user in a home, else raise NameInvalidError."""
    return _check(_USER_NAME, value, "User name", "1 to 32 lowercase letters, digits, '_' or '-'")


def check_flow_id(value: object) -> str:
    """Return ``value`` when it is an instance id (a lowercase UUID), else raise NameInvalidError."""
    return _check(_FLOW_ID, value, "Instance id", "the UUID that get_instance_id() returns")


def check_run_id(value: object) -> str:
    """Return ``value`` when it can name a workflow's run, else raise NameInvalidError."""
    return _check(_NAME, value, "Run id", "1 to 64 letters, digits, '_', '-' or single '.'")


def check_token(value: object, what: str = "Message id") -> str:
    """Return ``value`` when it is 32 lowercase hex digits (message, request and session ids), else raise."""
    return _check(_TOKEN, value, what, "32 lowercase hex digits")


def encode_user_id(public_key: bytes) -> str:
    """The user id of a 32-byte Ed25519 public key."""
    return base64.b32encode(public_key).decode().rstrip("=").lower()


def decode_user_id(user_id: str) -> bytes:
    """The 32-byte public key of a user id; raises NameInvalidError when it is malformed."""
    return base64.b32decode(check_user_id(user_id).upper() + "====")
