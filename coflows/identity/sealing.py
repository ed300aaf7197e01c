"""Seals bytes for one recipient and opens what was sealed for us.

An envelope is the msgpack array [header, nonce, ciphertext]. Encrypted and authenticated by XChaCha20-Poly1305
(libsodium's IETF construction) under the key of the pair of users, with the header as associated data: so it is bound
to all that the header says, and proves that one of the two wrote it.

Version 2 carries many messages, so that the work for an envelope and for its way through the broker is shared. Its
header is the msgpack array [2, sender's and recipient's public key, expiry] as bytes, its plaintext the msgpack array
of [message id, payload, stream, number]. Version 1 carries one: its header is [1, sender, recipient, message id,
expiry], its plaintext the payload. Both are read; the caller chooses which is written, for the time of an upgrade.

Version 3 is version 2 between users of whom one has a certificate: its header goes on with the sender's certificate
(nil in epoch 0) and the epoch of the recipient's key. So whoever gets a message has its sender's newest key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack
import nacl.bindings
import nacl.exceptions
import nacl.utils

from coflows.errors import EnvelopeError, NameInvalidError
from coflows.identity.keyring import Keyring, Way
from coflows.identity.keys import Identity
from coflows.model.names import decode_user_id, encode_user_id

SINGLE, PARCEL, KEYED = 1, 2, 3
NONCE_BYTES = 24
_LENGTHS = {SINGLE: 5, PARCEL: 4, KEYED: 6}
MAX_ITEMS = 1024
"""Messages in one envelope."""
LONGEST = 90 * 86400.0
"""Seconds for which an envelope may be valid: what was worked off is remembered for as long, so that it cannot come a
second time."""
SKEW = 3600.0
"""Seconds by which the clocks of users and workers may differ."""


class Item(NamedTuple):
    """One message in an envelope. ``number`` counts from 1 the messages of a ``stream`` (16 hex digits: what one
    session sends to one instance), whose order the receiver keeps; without a stream there is no order."""

    message_id: str
    payload: bytes
    stream: str | None = None
    number: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """What was in an envelope, and what it proves. ``expiry`` is in seconds since the epoch."""

    sender: str
    expiry: int
    items: tuple[Item, ...]

    @property
    def message_id(self) -> str:
        """The id of the first message."""
        return self.items[0].message_id

    @property
    def payload(self) -> bytes:
        """The payload of the first message."""
        return self.items[0].payload


def seal(
    identity: Identity, recipient: str, message_id: str, expiry: int, payload: bytes, nonce: bytes | None = None
) -> bytes:
    """A version-1 envelope that only ``recipient`` can open. ``nonce`` is for tests alone. Raises NameInvalidError."""
    header = [SINGLE, identity.public_key, decode_user_id(recipient), bytes.fromhex(message_id), expiry]
    return _sealed(identity, recipient, header, payload, nonce)


def seal_items(
    identity: Identity,
    recipient: str,
    expiry: int,
    items: Sequence[Item],
    nonce: bytes | None = None,
    way: Way | None = None,
) -> bytes:
    """A version-2 envelope of 1 to MAX_ITEMS messages, or version 3 that goes this ``way``. ``nonce`` is for tests
    alone. Raises NameInvalidError."""
    header: list[object] = [PARCEL, identity.public_key, decode_user_id(recipient), expiry]
    if way is not None:
        header = [KEYED, *header[1:], way.certificate, way.theirs]
    fromhex = bytes.fromhex
    rows = [
        (fromhex(item.message_id), item.payload, item.stream and fromhex(item.stream), item.number) for item in items
    ]
    return _sealed(identity, recipient, header, msgpack.packb(rows), nonce, None if way is None else way.key)


def _sealed(
    identity: Identity,
    recipient: str,
    fields: list[object],
    plaintext: bytes,
    nonce: bytes | None,
    key: bytes | None = None,
) -> bytes:
    nonce = nonce or nacl.utils.random(NONCE_BYTES)
    key = key or identity.shared_key(recipient)
    header = msgpack.packb(fields)
    sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, header, nonce, key)
    return bytes(msgpack.packb([header, nonce, sealed]))


def open_envelope(
    identity: Identity, data: bytes, now: float, max_bytes: int, keyring: Keyring | None = None
) -> Opened:
    """Check and open, in this order: size, structure and version, recipient, sender (proven by the key), expiry. Raises
    EnvelopeError for whatever is wrong, and nothing else. Of the messages' own bytes nothing is parsed."""
    if len(data) > max_bytes:
        raise EnvelopeError(f"The envelope has {len(data)} bytes; at most {max_bytes} are taken.")
    header, nonce, sealed = _parts(data)
    sender_key, recipient_key, message_id, expiry, certificate, epoch = _fields(header)
    if recipient_key != identity.public_key:
        raise EnvelopeError("The envelope is for another user.")
    sender, news = encode_user_id(sender_key), None
    try:
        if keyring is not None:
            key, news = keyring.key_from(sender, certificate, epoch)
        elif epoch or certificate is not None:
            raise EnvelopeError("The envelope is sealed with keys of a later epoch, of which nothing is known here.")
        else:
            key = identity.shared_key(sender)
        plaintext = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, key)
    except (nacl.exceptions.CryptoError, NameInvalidError) as error:
        raise EnvelopeError("The envelope was not sealed by its sender, or was changed.") from error
    if expiry < now:
        raise EnvelopeError("The envelope has expired.", hint="Are the clocks of both machines right?")
    if expiry > now + LONGEST + SKEW:
        raise EnvelopeError(
            f"The envelope is valid for {(expiry - now) / 86400:.0f} days; at most {LONGEST / 86400:.0f} are taken.",
            hint="Set COFLOWS_CALL_TTL to less at its sender. Are the clocks of both machines right?",
        )
    if keyring is not None and news is not None:
        keyring.learn(news)
    if message_id is not None:
        return Opened(sender, expiry, (Item(message_id.hex(), plaintext),))
    return Opened(sender, expiry, _items(plaintext))


def open_retired(identity: Identity, data: bytes, now: float, keyring: Keyring) -> Opened | None:
    """What was sealed with or for a key that counts no more, when it can still be opened and is valid: to tell its
    sender, and for nothing else, since it may be from anybody that has stolen the key."""
    try:
        header, nonce, sealed = _parts(data)
        sender_key, _, message_id, expiry, certificate, epoch = _fields(header)
        sender = encode_user_id(sender_key)
        key = keyring.retired_key(sender, certificate, epoch)
        if key is None or expiry < now:
            return None
        plaintext = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, header, nonce, key)
        items = _items(plaintext) if message_id is None else (Item(message_id.hex(), plaintext),)
    except (EnvelopeError, nacl.exceptions.CryptoError, NameInvalidError):
        return None
    return Opened(sender, expiry, items)


def _parts(data: bytes) -> tuple[bytes, bytes, bytes]:
    header, nonce, sealed = _array(data, 3)
    if not (isinstance(header, bytes) and isinstance(nonce, bytes) and isinstance(sealed, bytes)):
        raise EnvelopeError("These bytes are no envelope.")
    if len(nonce) != NONCE_BYTES or len(sealed) < 16:
        raise EnvelopeError("These bytes are no envelope.")
    return header, nonce, sealed


class _Fields(NamedTuple):
    """What a header says; ``message_id`` is None in a parcel, ``epoch`` that of the recipient's key."""

    sender: bytes
    recipient: bytes
    message_id: bytes | None
    expiry: int
    certificate: bytes | None
    epoch: int


def _fields(header: bytes) -> _Fields:
    fields = _array(header, None)
    version = fields[0] if fields else None
    if type(version) is not int:
        raise EnvelopeError("The envelope's header is malformed.")
    if version not in _LENGTHS:
        raise EnvelopeError(f"The envelope has version {version}; this side knows 1 to 3.", hint="Upgrade one side.")
    if len(fields) != _LENGTHS[version]:
        raise EnvelopeError("The envelope's header is malformed.")
    sender, recipient, expiry = fields[1], fields[2], fields[4 if version == SINGLE else 3]
    certificate, epoch = fields[4:] if version == KEYED else (None, 0)
    message_id = fields[3] if version == SINGLE else None
    if not (type(expiry) is int and isinstance(sender, bytes) and len(sender) == 32 and isinstance(recipient, bytes)):
        raise EnvelopeError("The envelope's header is malformed.")
    if version == SINGLE and not (isinstance(message_id, bytes) and len(message_id) == 16):
        raise EnvelopeError("The envelope's header is malformed.")
    if not ((certificate is None or isinstance(certificate, bytes)) and type(epoch) is int and 0 <= epoch < 2**31):
        raise EnvelopeError("The envelope's header is malformed.")
    return _Fields(sender, recipient, message_id if isinstance(message_id, bytes) else None, expiry, certificate, epoch)


def _items(plaintext: bytes) -> tuple[Item, ...]:
    rows = _array(plaintext, None, MAX_ITEMS)
    if not rows:
        raise EnvelopeError("The envelope is empty.")
    return tuple(_item(row) for row in rows)


def _item(row: object) -> Item:
    if not (isinstance(row, list) and len(row) == 4):
        raise EnvelopeError("A message in the envelope is malformed.")
    message_id, payload, stream, number = row
    if not (isinstance(message_id, bytes) and len(message_id) == 16 and isinstance(payload, bytes)):
        raise EnvelopeError("A message in the envelope is malformed.")
    if stream is None:
        return Item(message_id.hex(), payload)
    if not (isinstance(stream, bytes) and len(stream) == 8 and type(number) is int and 0 < number < 2**63):
        raise EnvelopeError("A message in the envelope has a malformed place in its order.")
    return Item(message_id.hex(), payload, stream.hex(), number)


def _array(data: bytes, length: int | None, most: int = 8) -> list[Any]:
    try:
        value = msgpack.unpackb(data, max_array_len=most, max_map_len=0, max_ext_len=0)
    except Exception as error:  # msgpack raises many kinds; all mean the same here
        raise EnvelopeError("These bytes are no envelope.") from error
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise EnvelopeError("These bytes are no envelope.")
    return value
