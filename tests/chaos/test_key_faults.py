"""Keys that are renewed by a process which is killed at every step, under load and while the worker is killed too."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import time
from collections.abc import Iterator

import pytest

from coflows import Client
from coflows.broker.rabbitmq_accounts import Accounts
from coflows.broker.rabbitmq_admin import RabbitAdmin
from coflows.broker.topology import ACCOUNTS, route_to
from coflows.cli import main
from coflows.codec.wire import encode
from coflows.dead_letters import list_dead_letters
from coflows.held_keys import read_own
from coflows.identity.sealing import Item, seal_items
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.layout import KEYRING
from coflows.model.messages import new_message_id
from coflows.serving import get_flow_instance
from tests.chaos.nursery import Say
from tests.chaos.running import running, until
from tests.chaos.world import Load, World, Worlds
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(300)]
TIMEOUT = 60
STEPS = ("before_rotate", "after_rotate", "mid_announce", "after_announce")
RENEWALS = [(user, how, step) for how in ("rotate", "revoke") for user in ("alice", "carol") for step in STEPS]
"""Whose keys, how, and where the process that does it is killed."""
if "DEATHS" not in os.environ:  # `make chaos-failpoints` has all of them.
    RENEWALS = [
        *(("alice", "rotate", step) for step in ("before_rotate", "after_rotate")),
        ("carol", "rotate", "mid_announce"),
        *(("alice", "revoke", step) for step in ("before_rotate", "after_rotate", "mid_announce")),
        *(("carol", "revoke", step) for step in ("after_rotate", "after_announce")),
    ]
DEATHS = itertools.cycle(("before_commit", "after_commit", "mid_publish", "after_publish"))
"""Of the worker, meanwhile."""


@pytest.fixture
def made(rabbitmq_node: RabbitMQ, worlds: Worlds) -> Iterator[World]:
    """A world in which each user has an account of his own on the broker."""
    with RabbitAdmin(rabbitmq_node.admin_url()) as admin, contextlib.ExitStack() as undo:
        accounts = Accounts(admin)
        undo.callback(admin.delete, "exchanges", "/", ACCOUNTS)  # For the tests to come there are none.

        def account(user_id: str) -> str:
            undo.callback(accounts.remove, user_id)
            return accounts.broker_url(user_id, accounts.add(user_id), rabbitmq_node.url)

        with worlds(account=account) as made:
            yield made


def renew(say: Say, user: str, how: str) -> None:
    """The job of ``coflows key``; says its exit code."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            main(["--as", user, "key", how])
        except SystemExit as ended:
            say(ended.code or 0)


def epoch(cl: Client) -> int:
    """Of the user's own key, as it is in his store."""
    own = read_own(cl.identity, cl.store.get(KEYRING)).certificate
    return 0 if own is None else own.epoch


def sealed(made: World, address: InstanceAddress, number: int) -> bytes:
    """A message of carol's to alice, with the keys that both have now."""
    call = Call(address.flow_id, {"number": number}, time.time())
    way, expiry = made.carol.keyring.way_to(made.alice.user_id), int(time.time()) + 600
    item = Item(new_message_id(), encode(call.to_dict()))
    return seal_items(made.carol.identity, made.alice.user_id, expiry, [item], way=way)


def knows(cl: Client, peer: Client) -> bool:
    """Whether a user's processes know which key a peer has now."""
    cl.keyring.reread()
    known = cl.keyring.peer(peer.user_id)
    return epoch(peer) == (0 if known is None else known.epoch)


def test_renewing_keys_killed_at_every_step(made: World) -> None:
    """All calls end, none is lost or applied twice, what is sealed with an ended key is refused, what is sealed with
    one that counts is not, and nobody is locked out."""
    users = {"alice": made.alice, "carol": made.carol}
    made.brood.worker("carol", environment={"COFLOWS_BROKER_URL": made.urls["carol"]}, dispatch=False).begun()
    applied, worker = [], made.worker(failpoint=f"{next(DEATHS)}:3")
    load = Load(made.witnesses(2, 0))
    other = get_flow_instance(made.carol, "witness", made.alice.user_id)
    with running(load, pause=0.05):
        for number, (user, how, step) in enumerate(RENEWALS):
            old, before = sealed(made, other.address, number), epoch(users[user])
            environment = {"COFLOWS_FAILPOINTS": f"{step}:1", "COFLOWS_BROKER_URL": made.urls[user]}
            child = made.brood.fork("tests.chaos.test_key_faults:renew", environment=environment, user=user, how=how)
            assert child.died.wait(TIMEOUT) and not child.heard, (user, how, step)
            assert epoch(users[user]) == before + (step != "before_rotate"), (user, how, step)
            until(lambda: worker.deaths > 0)  # noqa: B023 (called at once)
            sent = load.count
            until(lambda: load.answered >= sent)  # noqa: B023
            until(lambda: knows(made.alice, made.carol) and knows(made.carol, made.alice))
            worker.stop()
            worker = made.worker(failpoint=f"{next(DEATHS)}:3")
            made.carol.broker.publish(route_to(other.address).queue, old)
            if how == "rotate" or step == "before_rotate":
                applied.append(number)
    verdict = load.verdict()
    assert verdict.good, verdict
    assert other.ask({"report": True}, TIMEOUT) == {"seen": applied}
    assert all(letter.reason.startswith("key_retired") for letter in list_dead_letters(made.alice))
    assert get_flow_instance(made.carol, "witness", made.alice.user_id).ask({"number": 1}, TIMEOUT)["position"] == 1
