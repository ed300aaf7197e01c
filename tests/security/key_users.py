"""Users whose keys change, for the tests of keys."""

from __future__ import annotations

import time
from collections.abc import Callable

from coflows import Client
from coflows.identity.certificate import Certificate
from coflows.identity.sealing import Item, open_envelope, seal_items
from coflows.model.messages import new_message_id
from coflows.serving import serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

Users = Callable[..., list[Client]]
LIMIT = 2**20


def served(users: Users) -> tuple[Client, Client]:
    """An owner who serves ``tally`` with a worker, and a caller."""
    owner, caller = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "tests.security.leaky_flow.Tally", "tally")
    return owner, caller


def sealed(cl: Client, recipient: str) -> bytes:
    """What a user seals for another one now."""
    item = Item(new_message_id(), b"x")
    return seal_items(cl.identity, recipient, int(time.time()) + 60, [item], way=cl.keyring.way_to(recipient))


def opened_by(cl: Client, body: bytes) -> str:
    """By whom it is, for the user who opens it."""
    cl.keyring.reread()
    return open_envelope(cl.identity, body, time.time(), LIMIT, cl.keyring).sender


def with_certificate(owner: Client, caller: Client, certificate: Certificate) -> bytes:
    """What the owner seals with his own key, showing this certificate."""
    way = owner.keyring.way_to(caller.user_id)
    assert way is not None
    way = way._replace(certificate=certificate.raw)
    item = Item(new_message_id(), b"x")
    return seal_items(owner.identity, caller.user_id, int(time.time()) + 60, [item], way=way)
