"""A user's key pair: signs with Ed25519, and agrees on a key per pair of users with X25519."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NoReturn

import nacl.bindings
import nacl.exceptions
import nacl.signing

from coflows.errors import NameInvalidError
from coflows.model.names import decode_user_id, encode_user_id

CACHED_PAIRS = 4096
_DOMAIN = b"coflows/envelope/1"


class Identity:
    """Thread-safe. Never shows its secret, and cannot be pickled."""

    __slots__ = ("_curve_secret", "_lock", "_pairs", "_signing", "public_key", "user_id")

    def __init__(self, signing: nacl.signing.SigningKey) -> None:
        self._signing = signing
        self._curve_secret = bytes(signing.to_curve25519_private_key())
        self.public_key = bytes(signing.verify_key)
        self.user_id = encode_user_id(self.public_key)
        self._pairs: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    @classmethod
    def generate(cls) -> Identity:
        """A new random identity."""
        return cls(nacl.signing.SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> Identity:
        """The identity of a 32-byte seed."""
        return cls(nacl.signing.SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes that make the identity; only its home may ask."""
        return bytes(self._signing)

    @property
    def first_secret(self) -> bytes:
        """The 32-byte X25519 secret of epoch 0; only its keyring may ask."""
        return self._curve_secret

    def derived(self, purpose: bytes) -> bytes:
        """A 32-byte secret key of the identity for one purpose, always the same."""
        return hashlib.blake2b(purpose, key=bytes(self._signing), digest_size=32).digest()

    def sign(self, data: bytes) -> bytes:
        """The 64-byte Ed25519 signature."""
        return bytes(self._signing.sign(data).signature)

    def shared_key(self, user_id: str) -> bytes:
        """The 32-byte key of this pair of users (X25519 of the converted keys, then keyed BLAKE2b), the same on both
        sides; cached. Raises NameInvalidError when the id is no usable public key."""
        with self._lock:
            key = self._pairs.get(user_id)
            if key is not None:
                self._pairs.move_to_end(user_id)
                return key
        key = self._agree(user_id)
        with self._lock:
            self._pairs[user_id] = key
            if len(self._pairs) > CACHED_PAIRS:
                self._pairs.popitem(last=False)
        return key

    def _agree(self, user_id: str) -> bytes:
        try:
            curve = nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(decode_user_id(user_id))
            raw = nacl.bindings.crypto_box_beforenm(curve, self._curve_secret)
        except (nacl.exceptions.CryptoError, ValueError, TypeError, RuntimeError) as error:
            if isinstance(error, NameInvalidError):
                raise
            raise NameInvalidError(
                f"User id {user_id!r} is no public key.", hint="Compare with what `coflows user show` prints."
            ) from error
        return hashlib.blake2b(raw, key=_DOMAIN, digest_size=32).digest()

    def __repr__(self) -> str:
        return f"<Identity {self.user_id}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("An identity holds a secret and cannot be pickled.")


def verify(user_id: str, data: bytes, signature: bytes) -> bool:
    """Whether the user signed the data."""
    try:
        nacl.signing.VerifyKey(decode_user_id(user_id)).verify(data, signature)
    except (nacl.exceptions.CryptoError, ValueError):
        return False
    return True
