"""Grants: tokens signed by an endpoint's owner, which a holder hands on narrower and never wider.

A grant is a chain of blocks. The first is signed by the owner and says of which endpoint, for whom, until when and for
how much; each further one is signed by the holder of the block before it, and says for whom and for how much less. A
signature covers the ids of all blocks before it, so nothing can be taken out or put in between. Who presents a grant
is proven by the envelope it comes in, so a stolen one is of no use. As text: "cfg1." and base64url of the msgpack
array of [block, signature]; there is only one way to write each.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

from coflows.codec.wire import decode, encode
from coflows.errors import CoflowsError, GrantError, GrantExpiredError
from coflows.identity.keys import Identity, verify
from coflows.model.names import check_endpoint, check_user_id, decode_user_id, encode_user_id
from coflows.model.wire import MAX_GRANT

VERSION = 1
MAX_BLOCKS = 8
PREFIX = "cfg1."
LARGEST = 2**53
_DOMAIN = b"coflows/grant/1\0"


class Limits(NamedTuple):
    """How many messages, instances and bytes of messages, all together; None: any number."""

    calls: int | None = None
    instances: int | None = None
    bytes: int | None = None


NO_LIMITS = Limits()


@dataclass(frozen=True, slots=True)
class Block:
    """``id`` is 32 hex digits that stand for this block and all before it; ``expires`` in seconds since the epoch."""

    id: str
    holder: str
    expires: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Grant:
    """What was read from a token whose signatures are right and whose blocks grow no wider."""

    owner: str
    endpoint: str
    blocks: tuple[Block, ...]

    @property
    def id(self) -> str:
        """The id of its last block."""
        return self.blocks[-1].id

    @property
    def holder(self) -> str:
        """Who may use it, or hand a narrower one on."""
        return self.blocks[-1].holder

    @property
    def expires(self) -> int:
        """When it ends, in seconds since the epoch."""
        return self.blocks[-1].expires

    @property
    def limits(self) -> Limits:
        """Its own budget; those of the blocks before are shared with others."""
        return self.blocks[-1].limits


def issue(identity: Identity, endpoint: str, holder: str, expires: int, limits: Limits = NO_LIMITS) -> str:
    """A grant for an endpoint of one's own. Raises NameInvalidError, or GrantError for a budget that is none."""
    fields = [VERSION, identity.public_key, check_endpoint(endpoint), *_fields(holder, expires, limits)]
    return _text([_signed(identity, b"", fields)])


def narrow(identity: Identity, token: str, holder: str, expires: int | None = None, limits: Limits = NO_LIMITS) -> str:
    """The grant for another holder (or oneself), for what is asked for and otherwise as it was. Raises GrantError when
    it is not one's own, or more is asked for than it has."""
    parts, grant = _read(token)
    if grant.holder != identity.user_id:
        raise GrantError(f"The grant is held by user {grant.holder}.", hint="Only he can hand it on.")
    last = grant.blocks[-1]
    given = Limits(*(had if want is None else want for want, had in zip(limits, last.limits, strict=True)))
    block = Block("", check_user_id(holder), last.expires if expires is None else expires, given)
    _check_narrower(last, block)
    if len(parts) >= MAX_BLOCKS:
        raise GrantError(f"The grant was handed on {MAX_BLOCKS - 1} times, which is the most.")
    fields = _fields(block.holder, block.expires, given)
    return _text([*parts, _signed(identity, bytes.fromhex(last.id), fields)])


def check_grant(token: str, *, owner: str, endpoint: str, caller: str, now: float) -> Grant:
    """What ``caller`` (proven) may do with it at this endpoint of ``owner``'s. Raises GrantError, or
    GrantExpiredError."""
    grant = read_grant(token)
    if (grant.owner, grant.endpoint, grant.holder) != (owner, endpoint, caller):
        raise GrantError(
            "The grant is not for this: it is of another owner, endpoint or holder.",
            hint=f"It gives {grant.holder[:8]}... the endpoint {grant.endpoint!r} of {grant.owner[:8]}...",
        )
    check_time(grant, now)
    return grant


def check_time(grant: Grant, now: float) -> None:
    """Raise GrantExpiredError when its time is over."""
    if now >= grant.expires:
        raise GrantExpiredError(f"The grant for {grant.endpoint!r} has expired.", hint="Ask its owner for a new one.")


def read_grant(token: str) -> Grant:
    """Check signatures and narrowing, from the owner's block to the last. Raises GrantError for all that is wrong."""
    return _read(token)[1]


def _read(token: str) -> tuple[list[tuple[bytes, bytes]], Grant]:
    try:
        parts = _parts(token)
        version, owner_key, endpoint, *first = _array(parts[0][0], 9)
        if version != VERSION:
            raise GrantError("The grant is of another version.", hint="Upgrade one side.")
        signer = owner = _user(owner_key)
        check_endpoint(endpoint)
        blocks: list[Block] = []
        before = b""
        for number, (data, signature) in enumerate(parts):
            fields = _array(data, 6) if number else first
            if not _is_signed(signer, _message(before, data), signature):
                raise GrantError(f"Block {number + 1} of the grant is not signed by who held it: user {signer}.")
            before = _id(before, data)
            block = _block(before.hex(), fields)
            if blocks:
                _check_narrower(blocks[-1], block)
            blocks.append(block)
            signer = block.holder
        return parts, Grant(owner, endpoint, tuple(blocks))
    except GrantError:
        raise
    except (CoflowsError, ValueError, TypeError, IndexError) as error:
        raise GrantError("This is no grant, or it was changed.", hint="Pass on all of it, as it was given.") from error


def _check_narrower(before: Block, block: Block) -> None:
    limits = zip(before.limits, block.limits, strict=True)
    if block.expires > before.expires or any(had is not None and (new is None or new > had) for had, new in limits):
        raise GrantError("A block of the grant gives more than the one before it has.", hint="Ask for less.")


# -- bytes -----------------------------------------------------------------------------------------------------


def _text(parts: Sequence[tuple[bytes, bytes]]) -> str:
    return PREFIX + base64.urlsafe_b64encode(encode(parts)).decode().rstrip("=")


def _parts(token: object) -> list[tuple[bytes, bytes]]:
    if not isinstance(token, str) or not token.startswith(PREFIX) or len(token) > MAX_GRANT:
        raise GrantError(
            "This is no grant.", hint=f"One begins with {PREFIX!r}; it has {MAX_GRANT} characters at most."
        )
    body = token.removeprefix(PREFIX)
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise GrantError("This is no grant, or it was changed.") from error
    rows = _array(data, None)
    if not 1 <= len(rows) <= MAX_BLOCKS:
        raise GrantError(f"A grant has 1 to {MAX_BLOCKS} blocks.")
    parts = [(block, signature) for block, signature in rows]
    if _text(parts) != token:
        raise GrantError("The grant is not written the way grants are.")
    return parts


def _array(data: object, length: int | None) -> list[Any]:
    if type(data) is not bytes:
        raise GrantError("A block of the grant is malformed.")
    value = decode(data, max_bytes=MAX_GRANT, max_depth=2, max_items=64)
    if type(value) is not list or (length is not None and len(value) != length):
        raise GrantError("A block of the grant is malformed.")
    return value


def _fields(holder: str, expires: int, limits: Limits) -> list[Any]:
    fields = [decode_user_id(holder), expires, *limits, secrets.token_bytes(16)]
    _block("", fields)
    return fields


def _block(block_id: str, fields: Sequence[Any]) -> Block:
    holder, expires, calls, instances, size, nonce = fields
    for number in (calls, instances, size):
        if number is not None and not (type(number) is int and 0 <= number <= LARGEST):
            raise GrantError("A budget of the grant is no whole number.")
    if not (type(expires) is int and 0 <= expires <= LARGEST and type(nonce) is bytes and len(nonce) == 16):
        raise GrantError("A block of the grant is malformed.")
    return Block(block_id, _user(holder), expires, Limits(calls, instances, size))


def _user(key: object) -> str:
    if type(key) is not bytes or len(key) != 32:
        raise GrantError("A block of the grant is malformed.")
    return encode_user_id(key)


def _signed(identity: Identity, before: bytes, fields: Sequence[Any]) -> tuple[bytes, bytes]:
    data = encode(fields)
    return data, identity.sign(_message(before, data))


def _is_signed(signer: str, message: bytes, signature: object) -> bool:
    return type(signature) is bytes and len(signature) == 64 and verify(signer, message, signature)


def _message(before: bytes, data: bytes) -> bytes:
    return _DOMAIN + len(before).to_bytes(1, "big") + before + data


def _id(before: bytes, data: bytes) -> bytes:
    return blake2b(_message(before, data), digest_size=16).digest()
