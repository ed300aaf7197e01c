"""Texts signed by a user, as they travel through registries and are kept: what was signed is never written anew."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from coflows.errors import AccessDeniedError, SerializationError
from coflows.identity.keys import Identity, verify


class Signed(NamedTuple):
    """A text and its 64-byte signature in hex. ``kind`` is signed too, so that one of one kind is none of another."""

    text: str
    signature: str

    @classmethod
    def by(cls, identity: Identity, kind: str, text: str) -> Signed:
        """The text, signed by a user."""
        return cls(text, identity.sign(_message(kind, text)).hex())

    def check(self, user_id: str, kind: str) -> None:
        """Raise AccessDeniedError unless the user signed the text as this kind."""
        try:
            signature = bytes.fromhex(self.signature)
        except ValueError:
            signature = b""
        if len(signature) != 64 or not verify(user_id, _message(kind, self.text), signature):
            raise AccessDeniedError(f"This {kind} is not signed by user {user_id}.", hint="Sign it with his keys.")


def _message(kind: str, text: str) -> bytes:
    return f"coflows/registry/{kind}/1\n{text}".encode("utf-8", "surrogatepass")


def canonical(value: Any) -> str:
    """JSON in the one form that is signed and hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def parsed(text: str) -> dict[str, Any]:
    """A JSON object from elsewhere; raises SerializationError for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SerializationError("This is no JSON object.") from error
    if not isinstance(value, dict):
        raise SerializationError(f"Expected a JSON object, not {type(value).__name__}.")
    return value
