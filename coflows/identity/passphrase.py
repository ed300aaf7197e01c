"""Shuts a seed away under a passphrase: Argon2id makes a key of it, XChaCha20-Poly1305 seals with that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import nacl.exceptions
import nacl.pwhash
import nacl.secret
import nacl.utils

from coflows.errors import PassphraseError

KDF = nacl.pwhash.argon2id
MOST_OPS, MOST_MEMORY = KDF.OPSLIMIT_SENSITIVE, KDF.MEMLIMIT_SENSITIVE
"""More a file is not obeyed in."""


def lock(seed: bytes, passphrase: str, user_id: str) -> dict[str, Any]:
    """What a file may hold; takes half a second and 256 MiB, as guessing it does for each guess."""
    ops, memory, salt = KDF.OPSLIMIT_MODERATE, KDF.MEMLIMIT_MODERATE, nacl.utils.random(KDF.SALTBYTES)
    box = nacl.secret.Aead(KDF.kdf(32, passphrase.encode(), salt, ops, memory))
    sealed = bytes(box.encrypt(seed, user_id.encode()))
    return {"kdf": "argon2id", "ops": ops, "memory": memory, "salt": salt.hex(), "sealed": sealed.hex()}


def unlock(locked: Mapping[str, Any], passphrase: str, user_id: str) -> bytes:
    """The seed. Raises PassphraseError for a wrong passphrase, ValueError, KeyError or TypeError for a damaged file."""
    ops, memory = int(locked["ops"]), int(locked["memory"])
    if locked["kdf"] != "argon2id" or not (0 < ops <= MOST_OPS and 0 < memory <= MOST_MEMORY):
        raise ValueError("unknown key derivation")
    salt, sealed = bytes.fromhex(locked["salt"]), bytes.fromhex(locked["sealed"])
    try:
        box = nacl.secret.Aead(KDF.kdf(32, passphrase.encode(), salt, ops, memory))
        return bytes(box.decrypt(sealed, user_id.encode()))
    except nacl.exceptions.CryptoError:
        raise PassphraseError("This is not the passphrase of these keys.", hint="Try again.") from None
