"""Names of flows whose owner is looked up in registries: an endpoint, perhaps with the organization that offers it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from coflows.errors import NameInvalidError
from coflows.model.names import check_endpoint

REGISTRY = "registry"
"""Stands for "whoever offers it, as the registries say" where a user id is expected."""

SCHEME = "coflows://"
MAX_ORGANIZATION = 200
_HINT = "Expected coflows://organization/endpoint, with %20 for a space and %2F for a slash in the organization."


@dataclass(frozen=True, slots=True)
class FlowName:
    """An endpoint, at the organization that is named or (None) at any."""

    endpoint: str
    organization: str | None = None

    @classmethod
    def parse(cls, text: str) -> FlowName:
        """An endpoint's name, or coflows://organization/endpoint; raises NameInvalidError."""
        if not text.startswith(SCHEME):
            return cls(check_endpoint(text))
        quoted, slash, endpoint = text.removeprefix(SCHEME).partition("/")
        try:
            organization = unquote_to_bytes(quoted).decode()
        except UnicodeError as error:
            raise NameInvalidError(f"{text[:80]!r} is no name of a flow.", hint=_HINT) from error
        if not slash or not 0 < len(organization) <= MAX_ORGANIZATION or not organization.isprintable():
            raise NameInvalidError(f"{text[:80]!r} is no name of a flow.", hint=_HINT)
        return cls(check_endpoint(endpoint), organization)

    def __str__(self) -> str:
        if self.organization is None:
            return self.endpoint
        return f"{SCHEME}{quote(self.organization, safe='')}/{self.endpoint}"


def is_looked_up(user_id: str, endpoint: str) -> bool:
    """Whether who serves it is for the registries to say."""
    return user_id == REGISTRY or endpoint.startswith(SCHEME)
