"""Signed requests: every request that changes something says who asks whom for what, once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from coflows.errors import AccessDeniedError, NameInvalidError
from coflows.identity.keys import Identity
from coflows.model.names import check_user_id
from coflows.registry.record import MAX_NUMBER
from coflows.registry.signed import Signed
from coflows.registry.urls import check_url

USER, NUMBER, SIGNATURE, FROM = "coflows-user", "coflows-number", "coflows-signature", "coflows-from"
_KIND = "request"


class Asker(NamedTuple):
    """Who asks: a user, and for which service of his ("" when he does it himself). ``number`` grows with each request
    of the two."""

    user_id: str
    url: str
    number: int
    place: str = ""
    """The network that he asks from; "" for this machine."""


def sign_request(
    identity: Identity, to: str, method: str, path: str, body: bytes, number: int, url: str = ""
) -> dict[str, str]:
    """The headers of a request to the service at ``to``."""
    text = _text(to, method, path, body, number, url)
    signature = Signed.by(identity, _KIND, text).signature
    return {USER: identity.user_id, NUMBER: str(number), FROM: url, SIGNATURE: signature}


def check_request(headers: Mapping[str, str], to: str, method: str, path: str, body: bytes) -> Asker | None:
    """Who asks the service at ``to``; None when nobody signed. Whether the number is a new one is not checked here.
    Raises AccessDeniedError."""
    if SIGNATURE not in headers:
        return None
    number, url = headers.get(NUMBER, ""), headers.get(FROM, "")
    if not (number.isascii() and number.isdigit() and len(number) <= 16 and int(number) < MAX_NUMBER):
        raise AccessDeniedError(f"The header {NUMBER} is no number.")
    try:
        user_id = check_user_id(headers.get(USER, ""))
        if url and check_url(url).url != url:
            raise NameInvalidError(f"{url[:80]!r} is not in its one form.")
    except NameInvalidError as error:
        raise AccessDeniedError(f"The request's headers do not say who asks: {error}") from error
    try:
        Signed(_text(to, method, path, body, int(number), url), headers[SIGNATURE]).check(user_id, _KIND)
    except AccessDeniedError as error:
        raise AccessDeniedError(
            f"The request is not signed by user {user_id} for {to}.",
            hint="It is signed for the URL it is sent to: use the one that the service names itself by.",
        ) from error
    return Asker(user_id, url, int(number))


def _text(to: str, method: str, path: str, body: bytes, number: int, url: str) -> str:
    return "\n".join((to, method, path, url, str(number), hashlib.blake2b(body, digest_size=32).hexdigest()))
