"""Which keys are used between a user and his peers: his own epochs, and the newest certificate of each peer."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import nacl.bindings
import nacl.exceptions

from coflows.errors import CertificateError, CoflowsError, KeyRetiredError
from coflows.identity.certificate import LAST, Certificate
from coflows.identity.keys import Identity
from coflows.model.names import decode_user_id

logger = logging.getLogger(__name__)

FRESH = 2.0
"""Seconds for which what was read is believed, so that a revoked key is refused within them."""
CACHED_PAIRS = 4096
PASSING = 4096
"""Peers that a process knows beside those for whom there is room in the store."""
HINT = "Send it again: by now both sides know the new key."
_DOMAIN = b"coflows/envelope/3"


class Way(NamedTuple):
    """How to seal for somebody when one of the two has a certificate: the own one (None in epoch 0), the epoch of the
    recipient's key, and the key of the pair."""

    certificate: bytes | None
    theirs: int
    key: bytes


@dataclass(frozen=True, slots=True)
class Held:
    """What the store holds: the own certificate, the secret keys of epochs from 1 on, and the peers' certificates."""

    own: Certificate | None = None
    secrets: Mapping[int, bytes] = field(default_factory=dict, repr=False)
    peers: Mapping[str, Certificate] = field(default_factory=dict)


class Source:
    """Where a keyring is kept; the methods raise CoflowsError."""

    def read(self, known: Held) -> Held:
        """What is held now; ``known`` when nothing has changed."""
        return known

    def keep(self, certificate: Certificate) -> bool:
        """Remember a peer's certificate, also for the user's other processes. False when there is no room."""
        return True


class Keyring:
    """Thread-safe. Without certificates all is as if there were no epochs."""

    def __init__(
        self, identity: Identity, source: Source | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._identity = identity
        self._source = source or Source()
        self._clock = clock
        self._held = Held()
        self._learnt: dict[str, Certificate] = {}
        self._passing: OrderedDict[str, Certificate] = OrderedDict()
        self._pairs: OrderedDict[tuple[str, bytes, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._reading = threading.Lock()
        self._read_at = float("-inf")

    @property
    def own(self) -> Certificate | None:
        """The user's certificate, None in epoch 0."""
        return self._held.own

    def peer(self, user_id: str) -> Certificate | None:
        """The newest certificate that is known of a user, of himself too."""
        if user_id == self._identity.user_id:
            return self._held.own
        return self._passing.get(user_id) or self._learnt.get(user_id)

    def reread(self) -> None:
        """Read now what is held; raises what the source raises. Before the first use, so that no key counts that was
        given up."""
        with self._reading:
            self._read()

    # -- sealing and opening -----------------------------------------------------------------------------------

    def way_to(self, recipient: str) -> Way | None:
        """How to seal for a user; None when both use their first keys. Raises KeyRetiredError when one has ended."""
        self._refresh()
        own, theirs = self._held.own, self.peer(recipient)
        if own is None and theirs is None:
            return None
        for user_id, certificate in ((self._identity.user_id, own), (recipient, theirs)):
            if certificate is not None and certificate.epoch == LAST:
                raise KeyRetiredError(f"User {user_id} has ended: nothing is sealed for him or in his name.")
        public = b"" if theirs is None else theirs.public
        mine = 0 if own is None else own.epoch
        key = self._pair(recipient, public, mine)
        return Way(None if own is None else own.raw, 0 if theirs is None else theirs.epoch, key)

    def key_from(self, sender: str, certificate: bytes | None, mine: int) -> tuple[bytes, Certificate | None]:
        """The key of what ``sender`` sealed with the key of this certificate (None: his first one) for this user's key
        of epoch ``mine``; and the certificate, when it is a new one, to be learnt if the key fits. Raises
        KeyRetiredError when one of the two keys does not count, or CertificateError."""
        self._refresh()
        known = self.peer(sender)
        if mine == 0 and certificate is None and known is None and self._held.own is None:
            return self._identity.shared_key(sender), None
        if mine > self._epoch():
            self._refresh(now=True)  # Another process of this user has just made it.
        self._check_own(mine)
        shown = known if known is not None and known.raw == certificate else None
        if certificate is not None and shown is None:
            shown = Certificate.read(certificate)
            if shown.user_id != sender:
                raise CertificateError("The certificate is not its sender's.")
        epoch = 0 if shown is None else shown.epoch
        if known is not None and known is not shown:
            if epoch == known.epoch:
                raise CertificateError(f"User {sender} shows two certificates of epoch {epoch}; the first one counts.")
            if epoch < known.epoch and not known.takes(epoch, self._clock()):
                raise KeyRetiredError(f"User {sender} has given up the key of epoch {epoch}.", hint=HINT)
        if epoch == LAST:
            raise KeyRetiredError(f"User {sender} has ended.")
        key = self._pair(sender, b"" if shown is None else shown.public, mine)
        is_new = shown is not None and (known is None or epoch > known.epoch)
        return key, shown if is_new else None

    def retired_key(self, sender: str, certificate: bytes | None, mine: int) -> bytes | None:
        """``key_from`` for an own key that counts no more, to see whom to tell that, and for nothing else: who has
        stolen it can seal in anybody's name with it. None when the secret is not held any more."""
        try:
            shown = None if certificate is None else Certificate.read(certificate)
            return self._pair(sender, b"" if shown is None else shown.public, mine)
        except (KeyRetiredError, CertificateError):
            return None

    def learn(self, certificate: Certificate) -> bool:
        """Take in a peer's certificate, unless a later one is known. It is remembered before this returns, if it can
        be; it counts here in any case."""
        user_id = certificate.user_id
        with self._lock:
            known = self.peer(user_id)
            if user_id == self._identity.user_id or (known and known.epoch >= certificate.epoch):
                return False
            self._passing[user_id] = certificate
            self._passing.move_to_end(user_id)
            if len(self._passing) > PASSING:
                self._passing.popitem(last=False)
        logger.info("User %s has the key of epoch %d now.", user_id, certificate.epoch)
        try:
            if self._source.keep(certificate):
                self._take(certificate)
        except CoflowsError as error:
            logger.warning("The certificate of user %s is known to this process alone: %s", certificate.user_id, error)
        return True

    # ----------------------------------------------------------------------------------------------------------

    def _epoch(self) -> int:
        return 0 if self._held.own is None else self._held.own.epoch

    def _check_own(self, epoch: int) -> None:
        own = self._held.own
        counts = epoch == 0 if own is None else own.takes(epoch, self._clock())
        if not counts:
            raise KeyRetiredError(f"The message is sealed for a key of epoch {epoch}, which was given up.", hint=HINT)

    def _refresh(self, now: bool = False) -> None:
        """Read what is held, every other second; one thread does, others go on meanwhile."""
        if not now and time.monotonic() - self._read_at < FRESH:
            return
        if not self._reading.acquire(blocking=now):
            return
        try:
            self._read()
        except CoflowsError as error:
            logger.debug("Keys could not be read again: %s", error)
        finally:
            self._reading.release()

    def _read(self) -> None:
        self._read_at = time.monotonic()
        held = self._source.read(self._held)
        if held is not self._held:
            if self._held.own is not None and (held.own is None or held.own.epoch < self._held.own.epoch):
                logger.error("The store has keys of an earlier epoch than %d; they are not used.", self._epoch())
                return
            with self._lock:
                self._pairs.clear()
                self._held = held
            for certificate in held.peers.values():
                self._take(certificate)

    def _take(self, certificate: Certificate) -> None:
        with self._lock:
            known = self._learnt.get(certificate.user_id)
            if known is None or known.epoch < certificate.epoch:
                self._learnt[certificate.user_id] = certificate
            passing = self._passing.get(certificate.user_id)
            if passing is not None and passing.epoch <= certificate.epoch:
                del self._passing[certificate.user_id]

    def _pair(self, user_id: str, public: bytes, mine: int) -> bytes:
        if not public and mine == 0:
            return self._identity.shared_key(user_id)
        pair = (user_id, public, mine)
        with self._lock:
            key = self._pairs.get(pair)
        if key is None:
            key = self._agree(user_id, public, mine)
            with self._lock:
                self._pairs[pair] = key
                if len(self._pairs) > CACHED_PAIRS:
                    self._pairs.popitem(last=False)
        return key

    def _agree(self, user_id: str, public: bytes, mine: int) -> bytes:
        if mine:
            secret = self._held.secrets.get(mine)
            if secret is None:
                raise KeyRetiredError(f"The secret key of epoch {mine} is not held.")
        else:
            secret = self._identity.first_secret
        try:
            public = public or nacl.bindings.crypto_sign_ed25519_pk_to_curve25519(decode_user_id(user_id))
            raw = nacl.bindings.crypto_box_beforenm(public, secret)
        except (nacl.exceptions.CryptoError, ValueError, TypeError, RuntimeError) as error:
            raise CertificateError(f"The key of user {user_id} is none.") from error
        return hashlib.blake2b(raw, key=_DOMAIN, digest_size=32).digest()

    def __repr__(self) -> str:
        return f"<Keyring of {self._identity.user_id}, epoch {self._epoch()}>"
