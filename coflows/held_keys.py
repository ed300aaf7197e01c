"""A user's keyring in his store: all his processes, on whatever machine, have the same keys and know the same of peers.

The secret keys are sealed under a key that is made of the identity's seed, which the store does not have.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import NamedTuple

import nacl.exceptions
import nacl.secret

from coflows.codec.wire import decode, encode
from coflows.errors import ConflictError, IdentityError
from coflows.identity.certificate import Certificate
from coflows.identity.keyring import Held, Keyring, Source
from coflows.identity.keys import Identity
from coflows.model.layout import KEYRING, PEER_KEYS, PEERS_CHANGED, peer_key
from coflows.store.base import ABSENT, Entry, Store

logger = logging.getLogger(__name__)

MOST_PEERS = 10_000
"""Peers whose certificates are remembered. Who comes later is not: were room made, strangers could have a revoked key
forgotten."""
MAX_RECORD = 2**16


class OwnKeys(NamedTuple):
    """The record of a user's own keys, and the version it has in the store."""

    certificate: Certificate | None
    secrets: Mapping[int, bytes]
    version: int


class StoredKeys(Source):
    """The keyring of one user in one store."""

    def __init__(self, identity: Identity, store: Store) -> None:
        self._identity = identity
        self._store = store
        self._versions: tuple[int, int] = (ABSENT, ABSENT)
        self._lock = threading.Lock()

    def read(self, known: Held) -> Held:
        """See Source. One read when nothing has changed."""
        with self._lock:
            found = self._store.get_many([KEYRING, PEERS_CHANGED])
            versions = (_version(found.get(KEYRING)), _version(found.get(PEERS_CHANGED)))
            if versions == self._versions:
                return known
            own = read_own(self._identity, found.get(KEYRING))
            rows = self._store.scan(PEER_KEYS)
            # To check ten thousand signatures takes a second, and any of those users may have all read again.
            had = {one.raw: one for one in known.peers.values()}
            peers = [had.get(row.value) or Certificate.read(row.value) for row in rows]
            self._versions = versions
            return Held(own.certificate, own.secrets, {one.user_id: one for one in peers})

    def keep(self, certificate: Certificate) -> bool:
        """See Source."""
        key = peer_key(certificate.user_id)
        while True:
            found = self._store.get_many([key, PEERS_CHANGED])
            entry, counted = found.get(key), found.get(PEERS_CHANGED)
            count = 0 if counted is None else int(decode(counted.value, max_bytes=MAX_RECORD))
            if entry is not None and Certificate.read(entry.value).epoch >= certificate.epoch:
                return True
            if entry is None and count >= MOST_PEERS:
                logger.warning("Certificates of %d users are remembered; no more are.", count)
                return False
            writes = {key: certificate.raw, PEERS_CHANGED: encode(count + (entry is None))}
            try:
                self._store.commit(writes, conditions={key: _version(entry), PEERS_CHANGED: _version(counted)})
            except ConflictError:
                continue  # Another process learns too.
            return True


def open_keyring(identity: Identity, store: Store) -> Keyring:
    """The keyring of a user, read from his store when it is first used."""
    return Keyring(identity, StoredKeys(identity, store))


def read_own(identity: Identity, entry: Entry | None) -> OwnKeys:
    """A user's own keys. Raises IdentityError when the record is not his or was changed."""
    if entry is None:
        return OwnKeys(None, {}, ABSENT)
    value = decode(entry.value, max_bytes=MAX_RECORD)
    try:
        shut = _box(identity).decrypt(value["secrets"], value["certificate"])
    except nacl.exceptions.CryptoError as error:
        raise IdentityError("The keys in the store are another user's, or were changed.") from error
    secrets = {int(epoch): secret for epoch, secret in decode(shut, max_bytes=MAX_RECORD)}
    return OwnKeys(Certificate.read(value["certificate"]), secrets, entry.version)


def write_own(
    identity: Identity, store: Store, certificate: Certificate, secrets: Mapping[int, bytes], version: int
) -> None:
    """Put a user's own keys in place of those of ``version``. Raises ConflictError when another process did so."""
    shut = bytes(_box(identity).encrypt(encode([[epoch, one] for epoch, one in secrets.items()]), certificate.raw))
    store.commit({KEYRING: encode({"certificate": certificate.raw, "secrets": shut})}, conditions={KEYRING: version})


def _box(identity: Identity) -> nacl.secret.Aead:
    return nacl.secret.Aead(identity.derived(b"coflows/keyring/1"))


def _version(entry: Entry | None) -> int:
    return ABSENT if entry is None else entry.version
