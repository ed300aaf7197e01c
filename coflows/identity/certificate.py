"""A user's sealing key of one epoch, signed with the key that he is known by.

In epoch 0 a user seals with the X25519 form of his Ed25519 key, which everybody can make of his user id. Later epochs
have random keys, and a certificate says which, and until when keys of earlier epochs are still taken. The one with the
highest epoch known counts; what it does not name has ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from coflows.errors import CertificateError
from coflows.identity.keys import Identity, verify
from coflows.model.names import encode_user_id

LAST = 2**31 - 1
"""The epoch in which there is no key: the user has ended."""
MAX_BYTES = 1024
MAX_EARLIER = 16
_VERSION = 1
_DOMAIN = b"coflows/certificate/1\n"


@dataclass(frozen=True, slots=True)
class Certificate:
    """``public`` are 32 bytes, none in the last epoch. ``earlier`` maps epochs that are still taken to when they
    end, in seconds since 1970. ``raw`` is what was signed, with the signature."""

    user_id: str
    epoch: int
    public: bytes
    earlier: dict[int, int]
    raw: bytes

    @classmethod
    def issue(cls, identity: Identity, epoch: int, public: bytes, earlier: dict[int, int]) -> Certificate:
        """Sign one."""
        body = msgpack.packb([_VERSION, identity.public_key, epoch, public, sorted(earlier.items())])
        return cls.read(msgpack.packb([body, identity.sign(_DOMAIN + body)]))

    @classmethod
    def read(cls, raw: bytes) -> Certificate:
        """Check the bytes, whoever they are from. Raises CertificateError."""
        body, signature = _array(raw, 2)
        if not (isinstance(body, bytes) and isinstance(signature, bytes) and len(signature) == 64):
            raise CertificateError("These bytes are no certificate.")
        version, key, epoch, public, earlier = _array(body, 5)
        if version != _VERSION:
            raise CertificateError(f"The certificate has version {version!r}.", hint="Upgrade this side.")
        if not (isinstance(key, bytes) and len(key) == 32 and type(epoch) is int and 0 < epoch <= LAST):
            raise CertificateError("These bytes are no certificate.")
        if not (isinstance(public, bytes) and len(public) == (0 if epoch == LAST else 32)):
            raise CertificateError("The certificate has no key.")
        user_id = encode_user_id(key)
        if not verify(user_id, _DOMAIN + body, signature):
            raise CertificateError(f"The certificate is not signed by user {user_id}.")
        return cls(user_id, epoch, public, _ends(earlier, epoch), raw)

    def takes(self, epoch: int, now: float) -> bool:
        """Whether keys of an epoch count."""
        return (epoch == self.epoch and epoch != LAST) or now < self.earlier.get(epoch, 0)


def _ends(value: object, epoch: int) -> dict[int, int]:
    rows: Sequence[Any] = value if isinstance(value, list) else [None]
    if len(rows) > MAX_EARLIER or not all(
        isinstance(row, list) and len(row) == 2 and type(row[0]) is int and type(row[1]) is int and 0 <= row[0] < epoch
        for row in rows
    ):
        raise CertificateError("The certificate's earlier epochs are malformed.")
    return {row[0]: row[1] for row in rows}


def _array(data: bytes, length: int) -> list[Any]:
    try:
        if len(data) > MAX_BYTES:
            raise ValueError
        value = msgpack.unpackb(data, max_array_len=MAX_EARLIER, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises many kinds; all mean the same here
        raise CertificateError("These bytes are no certificate.") from error
    if not isinstance(value, list) or len(value) != length:
        raise CertificateError("These bytes are no certificate.")
    return value
