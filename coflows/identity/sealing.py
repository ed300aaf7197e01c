"""Seals bytes for one recipient and opens what was sealed for us.

An envelope is the msgpack array [header, nonce, ciphertext]; the header is the msgpack array [version, sender's and
recipient's public key, message id, expiry] as bytes. Encrypted and authenticated by XChaCha20-Poly1305 (libsodium's
IETF construction) under the key of the pair of users, with the header as associated data: so it is bound to all that
the header says, and proves that one of the two wrote it.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgpack
import nacl.bindings
import nacl.exceptions
import nacl.utils

from coflows.errors import EnvelopeError, NameInvalidError
from coflows.identity.keys import Identity
from coflows.model.names import decode_user_id, encode_user_id

VERSION = 1
NONCE_BYTES = 24


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in an envelope, and what it proves. ``expiry`` is in seconds since the epoch."""

    sender: str
    message_id: str
    expiry: int
    payload: bytes


def seal(
    identity: Identity, recipient: str, message_id: str, expiry: int, payload: bytes, nonce: bytes | None = None
) -> bytes:
    """An envelope that only ``recipient`` can open. ``nonce`` is for tests alone. Raises NameInvalidError."""
    nonce = nonce or nacl.utils.random(NONCE_BYTES)
    key = identity.shared_key(recipient)
    header = msgpack.packb(
        [VERSION, identity.public_key, decode_user_id(recipient), bytes.fromhex(message_id), expiry]
    )
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(payload, header, nonce, key)
    return bytes(msgpack.packb([header, nonce, sealed]))


def open_envelope(identity: Identity, data: bytes, now: float, max_bytes: int) -> Opened:
    """Check and open, in this order: size, structure and version, recipient, sender (proven by the key), expiry. Raises
    EnvelopeError for whatever is wrong, and nothing else."""
    if len(data) > max_bytes:
        raise EnvelopeError(f"The envelope has {len(data)} bytes; at most {max_bytes} are taken.")
    header, nonce, sealed = _parts(data)
    version, sender_key, recipient_key, message_id, expiry = _fields(header)
    if version != VERSION:
        raise EnvelopeError(f"The envelope has version {version}; this side knows {VERSION}.", hint="Upgrade one side.")
    if recipient_key != identity.public_key:
        raise EnvelopeError("The envelope is for another user.")
    sender = encode_user_id(sender_key)
    try:
        key = identity.shared_key(sender)
        payload = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, key)
    except (nacl.exceptions.CryptoError, NameInvalidError) as error:
        raise EnvelopeError("The envelope was not sealed by its sender, or was changed.") from error
    if expiry < now:
        raise EnvelopeError("The envelope has expired.", hint="Are the clocks of both machines right?")
    return Opened(sender, message_id.hex(), expiry, payload)


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    header, nonce, sealed = _array(data, 3)
    if not (isinstance(header, bytes) and isinstance(nonce, bytes) and isinstance(sealed, bytes)):
        raise EnvelopeError("These bytes are no envelope.")
    if len(nonce) != NONCE_BYTES or len(sealed) < 16:
        raise EnvelopeError("These bytes are no envelope.")
    return header, nonce, sealed


def _fields(header: bytes) -> tuple[int, bytes, bytes, bytes, int]:
    version, sender, recipient, message_id, expiry = _array(header, 5)
    if not (type(version) is int and type(expiry) is int and isinstance(sender, bytes) and len(sender) == 32):
        raise EnvelopeError("The envelope's header is malformed.")
    if not (isinstance(recipient, bytes) and isinstance(message_id, bytes) and len(message_id) == 16):
        raise EnvelopeError("The envelope's header is malformed.")
    return version, sender, recipient, message_id, expiry


def _array(data: bytes, length: int) -> list[object]:
    try:
        value = msgpack.unpackb(data, max_array_len=length, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises many kinds; all mean the same here
        raise EnvelopeError("These bytes are no envelope.") from error
    if not isinstance(value, list) or len(value) != length:
        raise EnvelopeError("These bytes are no envelope.")
    return value
