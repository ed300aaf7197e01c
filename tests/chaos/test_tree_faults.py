"""A tree over three users whose fetch is killed at every hop: it comes to be as a whole, or nothing stays behind."""

from __future__ import annotations

import signal
import time
from typing import Any

import pytest

from coflows import connect
from coflows.instances import find_instance, instance_ids
from coflows.model.address import InstanceAddress
from coflows.model.layout import KEEPING, keeping_key
from coflows.serving import get_flow_instance, serve_flow
from tests.chaos.lives import Lives
from tests.chaos.nursery import Brood, Say
from tests.chaos.running import until
from tests.chaos.world import World

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(300)]
TIMEOUT = 60
TTL = 8.0
"""Seconds that a fetch may take; twice as long after it began, nothing of an unfinished one is there."""
USERS = ("alice", "bob", "carol")
WORKER = ("fetch_sent", "before_mount", "after_mount", "after_answer", "mid_keep")
DEATHS = [
    *(("carol", name) for name in ("fetch_sent", "before_mount", "after_mount")),
    *(("bob", name) for name in WORKER),
    *(("alice", name) for name in WORKER[1:]),
]


def fetch(say: Say, endpoint: str, owner: str, overrides: dict[str, Any], timeout: float) -> None:
    """The job of who fetches."""
    cl = connect("carol")
    flow = get_flow_instance(cl, endpoint, owner, config_overrides=overrides, timeout=timeout)
    say(flow.address.to_dict())
    signal.pause()


@pytest.mark.parametrize("root", ["bob", "local"])
def test_a_fetch_killed_at_every_hop(root: str, made: World, nursery: Brood) -> None:
    """Whoever dies comes back at once, except the one who fetched: what he had not got yet goes."""
    overrides = {"subflows_config": {"next": {"user_id": made.alice.user_id, "flow_endpoint": "witness"}}}
    if root == "local":
        serve_flow(made.carol, "tests.chaos.flows.Relay", "outer")
        inner = {"user_id": made.bob.user_id, "flow_endpoint": "relay", **overrides}
        overrides = {"subflows_config": {"next": inner}}
        nursery.worker("carol").ready.wait(TIMEOUT)
    endpoint, owner = ("relay", made.bob.user_id) if root == "bob" else ("outer", "local")
    got: list[InstanceAddress] = []
    for who, failpoint in DEATHS:
        spec = f"{failpoint}:1"
        lives = {user: Lives(nursery, user, [spec] if who == user else []) for user in ("alice", "bob")}
        for one in lives.values():
            until(lambda: one.child.ready.is_set())  # noqa: B023
        child = nursery.fork(
            "tests.chaos.test_tree_faults:fetch",
            environment={"COFLOWS_FAILPOINTS": spec if who == "carol" else ""},
            endpoint=endpoint,
            owner=owner,
            overrides=overrides,
            timeout=TTL,
        )
        until(lambda: child.died.is_set() or bool(child.heard))  # noqa: B023 (called at once)
        if who != "carol":
            assert child.heard, (who, failpoint)
            got.append(InstanceAddress.from_dict(child.heard[0]))
            until(lambda: lives[who].deaths == 1)  # noqa: B023
            # Or the next one may die over what is left of this fetch.
            until(lambda: _settled(made, "carol" if root == "local" else "bob", got[-1].flow_id))
        else:
            assert not child.heard, failpoint
        child.stop()
        for one in lives.values():
            one.stop()
    # Carol's own worker tells what her process that died has not told.
    for worker in [nursery.worker(user) for user in ("alice", "bob", "carol")]:
        worker.ready.wait(TIMEOUT)
    _check(made, got, time.monotonic() + 2 * TTL, local=root == "local")


def test_an_owner_who_comes_back_after_the_deadline(made: World, nursery: Brood) -> None:
    """He had mounted what was asked for, and died before he could say so; by then nobody waits any more."""
    overrides = {"subflows_config": {"next": {"user_id": made.alice.user_id, "flow_endpoint": "witness"}}}
    alice = nursery.worker("alice")
    for failpoint in ("fetch_sent", "after_mount"):
        bob = nursery.worker("bob", environment={"COFLOWS_FAILPOINTS": f"{failpoint}:1"})
        alice.ready.wait(TIMEOUT)
        bob.ready.wait(TIMEOUT)
        began = time.monotonic()
        child = nursery.fork(
            "tests.chaos.test_tree_faults:fetch",
            endpoint="relay",
            owner=made.bob.user_id,
            overrides=overrides,
            timeout=TTL / 2,
        )
        assert bob.died.wait(TIMEOUT)
        assert child.died.wait(TIMEOUT) and not child.heard, "it ends with a typed error"
    nursery.worker("bob").ready.wait(TIMEOUT)
    _check(made, [], began + TTL, local=False)


def _tree(made: World, owner: str, flow_id: str) -> dict[str, str]:
    """Who has which instance of a tree, which is whole."""
    names = {getattr(made, name).user_id: name for name in USERS}
    found, left = {}, [(owner, flow_id)]
    while left:
        name, flow_id = left.pop()
        found[flow_id] = name
        instance = find_instance(getattr(made, name).store, flow_id)
        assert instance is not None, (name, flow_id)
        left += [(names[address.user_id], address.flow_id) for address in instance.subflows.values()]
    return found


def _settled(made: World, owner: str, flow_id: str) -> bool:
    """Whether nobody has anything still to do for a tree."""
    keys = [keeping_key(one) for one in _tree(made, owner, flow_id)]
    return not any(getattr(made, name).store.get_many(keys) for name in USERS)


def _check(made: World, got: list[InstanceAddress], then: float, *, local: bool) -> None:
    """What was got is whole and works; by ``then``, and what a sweep takes, nothing else is anywhere."""

    def orphans() -> dict[str, set[str]]:
        found = {name: set(instance_ids(getattr(made, name).store)) for name in USERS}
        roots = {address.flow_id for address in got}
        if local:
            # Mounted whole in one commit: there to be listed and deleted, though its process died with that knowledge.
            roots |= found["carol"]
        for root in roots:
            for flow_id, name in _tree(made, "carol" if local else "bob", root).items():
                found[name].discard(flow_id)
        return {name: ids for name, ids in found.items() if ids}

    def records() -> list[str]:
        return [key for cl in (made.alice, made.bob, made.carol) for key in cl.store.keys(KEEPING)]

    deadline = max(then, time.monotonic()) + TIMEOUT
    while orphans() or records():
        assert time.monotonic() < deadline, (orphans(), records())
        time.sleep(0.1)
    for address in got:
        assert made.carol.proxy(address).ask({"number": 1}, TIMEOUT) == {"number": 1, "position": 1}
