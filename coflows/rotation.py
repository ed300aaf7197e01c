"""Giving a user a new key, with an overlap (rotate) or without (revoke), ending him for good, and telling his peers."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from concurrent.futures import Future, wait

import nacl.bindings
import nacl.utils

from coflows.broker.topology import door_queue
from coflows.client import Client
from coflows.codec.wire import decode
from coflows.errors import BrokerError, CoflowsError, ConflictError, KeyRetiredError
from coflows.failpoints import Failpoints
from coflows.held_keys import MAX_RECORD, OwnKeys, read_own, write_own
from coflows.identity.certificate import LAST, MAX_EARLIER, Certificate
from coflows.model.layout import FETCHED, FLOWS, KEYRING, PEER_KEYS, parse_mount_key
from coflows.model.messages import new_message_id
from coflows.model.names import LOCAL, check_user_id
from coflows.model.wire import Hello
from coflows.store.base import Store

logger = logging.getLogger(__name__)

OVERLAP = 90 * 86400.0
"""Seconds: for so long a message may be valid, so that none under way is lost."""
ANNOUNCE_TIMEOUT = 30.0


def rotate(cl: Client, overlap: float = OVERLAP, epoch: int = 0) -> Certificate:
    """A new key: what leaves from now on is sealed with it, and what others seal for the one before is opened for
    ``overlap`` seconds more. Secret keys whose overlap is over are deleted. Safe while all his processes run; they go
    over to it within two seconds. The next epoch is at least ``epoch``: peers take no earlier one than they know, which
    a user whose store was lost no longer knows himself. Raises KeyRetiredError when the user has ended."""
    return _renew(cl, overlap, epoch)


def revoke(cl: Client) -> Certificate:
    """A new key, and none before it counts: what was sealed for them and is not worked off yet is refused, and its
    senders told. His processes do so within two seconds, and peers once they have heard of it."""
    return _renew(cl, 0.0)


def end(cl: Client) -> Certificate:
    """The user ends for good: who hears of it takes nothing from him and sends him nothing. There is no way back."""
    announce_to = _peers(cl.store)
    own = read_own(cl.identity, cl.store.get(KEYRING))
    if own.certificate is not None and own.certificate.epoch == LAST:
        return own.certificate
    # Peers learn it from a message, which has to be sealed with a key: with the one that ends.
    certificate = Certificate.issue(cl.identity, LAST, b"", {})
    _tell(cl, announce_to, certificate)
    write_own(cl.identity, cl.store, certificate, {}, own.version)
    return certificate


def announce(cl: Client) -> int:
    """Tell all peers of the user's certificate: who has fetched from him, whom he has fetched from, and whose
    certificates he has. Those who are not on this broker are left out. Gives how many were told."""
    certificate = read_own(cl.identity, cl.store.get(KEYRING)).certificate
    return 0 if certificate is None else _tell(cl, _peers(cl.store), certificate)


def learn(cl: Client, certificate: bytes) -> Certificate:
    """Take in a peer's certificate that came another way than in a message. Raises CertificateError."""
    read = Certificate.read(certificate)
    cl.keyring.learn(read)
    return read


def _renew(cl: Client, overlap: float, least: int = 0) -> Certificate:
    failpoints = Failpoints(cl.settings.failpoints)
    while True:
        own, now = read_own(cl.identity, cl.store.get(KEYRING)), time.time()
        epoch = 0 if own.certificate is None else own.certificate.epoch
        if epoch == LAST:
            raise KeyRetiredError("This user has ended.", hint="Make a new one: coflows user create NAME")
        earlier = _earlier(own, epoch, now, overlap)
        secret = nacl.utils.random(32)
        public = nacl.bindings.crypto_scalarmult_base(secret)
        following = max(epoch + 1, least)
        certificate = Certificate.issue(cl.identity, following, public, earlier)
        # Of keys without overlap the secret stays until the next time: to tell those who still seal for them.
        kept = {one: old for one, old in own.secrets.items() if one in earlier or one == epoch}
        failpoints.reach("before_rotate")
        try:
            write_own(cl.identity, cl.store, certificate, {**kept, following: secret}, own.version)
        except ConflictError:
            continue
        failpoints.reach("after_rotate")
        cl.keyring.reread()
        return certificate


def _earlier(own: OwnKeys, epoch: int, now: float, overlap: float) -> dict[int, int]:
    if overlap <= 0:
        return {}
    before = {} if own.certificate is None else own.certificate.earlier
    ends = {one: until for one, until in before.items() if until > now} | {epoch: int(now + overlap) + 1}
    return dict(sorted(ends.items())[-MAX_EARLIER:])


def _tell(cl: Client, peers: Iterable[str], certificate: Certificate) -> int:
    sent: list[Future[None]] = []
    hello, failpoints = Hello(certificate=certificate.raw), Failpoints(cl.settings.failpoints)
    try:
        session = cl.session
    except BrokerError as error:
        logger.warning("Nobody was told of the new key, which counts all the same: %s", error)
        return 0
    for peer in peers:
        try:
            sent.append(session.send(door_queue(peer).name, peer, new_message_id(), hello))
        except CoflowsError as error:
            logger.info("User %s was not told of the new key: %s", peer, error)
        failpoints.reach("mid_announce")
    done, _ = wait(sent, ANNOUNCE_TIMEOUT)
    failpoints.reach("after_announce")
    return sum(one.exception() is None for one in done)


def _peers(store: Store) -> set[str]:
    found = {key.removeprefix(PEER_KEYS) for key in store.keys(PEER_KEYS)}
    found |= {parsed[0].client for key in store.keys(FLOWS) if (parsed := parse_mount_key(key)) is not None}
    found |= {decode(entry.value, max_bytes=MAX_RECORD)["user_id"] for entry in store.scan(FETCHED)}
    return {check_user_id(one) for one in found if one != LOCAL}
