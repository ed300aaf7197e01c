"""Attacks on grants: forged, widened, stolen, outlived, overrun."""

from __future__ import annotations

import time

import pytest

from coflows import Client
from coflows.access import grants
from coflows.access.grants import Limits, issue, narrow, read_grant
from coflows.errors import (
    AccessDeniedError,
    CoflowsError,
    FlowConfigError,
    GrantError,
    GrantExpiredError,
    GrantRevokedError,
    GrantSpentError,
    InstanceNotFoundError,
)
from coflows.granting import grant_flow, list_grants, narrow_grant, revoke_grant
from coflows.serving import get_flow_instance, release_flow_instance
from tests.security import flows
from tests.security.world import TIMEOUT, World, becomes, mounted, refused_with, spent, works


def refused(world: World, cl: Client, endpoint: str, grant: str | None, kind: type[CoflowsError] = GrantError) -> None:
    refused_with(kind, lambda: world.fetch(cl, endpoint, grant=grant))
    assert mounted(world.alice, endpoint) == []


def test_no_grant_at_all(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    refused(world, world.mallory, endpoint, None, AccessDeniedError)
    works(world, world.bob, endpoint, grant_flow(world.alice, world.bob.user_id, endpoint))
    assert get_flow_instance(world.alice, endpoint).ask({}, TIMEOUT)["count"] == 1, "the owner needs none"


def test_forged_in_the_owners_name(world: World) -> None:
    endpoint, mallory = world.serve("Tally", access="grant"), world.mallory
    until = int(time.time()) + 100
    own = issue(mallory.identity, endpoint, mallory.user_id, until)
    refused(world, mallory, endpoint, own)
    fields = [1, world.alice.identity.public_key, endpoint, *grants._fields(mallory.user_id, until, Limits())]
    refused(world, mallory, endpoint, grants._text([grants._signed(mallory.identity, b"", fields)]))


def test_widened_by_its_holder(world: World) -> None:
    """With the right signature over more than he has: later, more, and more of what was not limited before."""
    endpoint, bob = world.serve("Tally", access="grant"), world.bob
    token = grant_flow(world.alice, bob.user_id, endpoint, calls=2, lifetime=60)
    parts, grant = grants._read(token)
    for expires, limits in (
        (grant.expires + 1, grant.limits),
        (grant.expires, Limits(3, None, None)),
        (grant.expires, Limits(None, 1, 1)),
    ):
        fields = grants._fields(bob.user_id, expires, limits)
        wider = grants._text([*parts, grants._signed(bob.identity, bytes.fromhex(grant.id), fields)])
        refused(world, bob, endpoint, wider)


def test_narrowed_back_to_what_it_was(world: World) -> None:
    """Whoever was given less cannot drop the block that says so: the one before is not his."""
    endpoint, mallory = world.serve("Tally", access="grant"), world.mallory
    token = grant_flow(world.alice, world.bob.user_id, endpoint)
    less = narrow_grant(world.bob, token, mallory.user_id, calls=1)
    refused(world, mallory, endpoint, grants._text(grants._read(less)[0][:1]))
    flow = works(world, mallory, endpoint, less)
    refused_with(GrantSpentError, lambda: flow.ask({}, TIMEOUT))


def test_stolen_by_somebody_else(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint)
    refused(world, world.mallory, endpoint, token)
    with pytest.raises(GrantError):
        narrow(world.mallory.identity, token, world.mallory.user_id)


def test_used_at_another_endpoint(world: World) -> None:
    endpoint, other = (world.serve("Tally", access="grant") for _ in range(2))
    refused(world, world.bob, endpoint, grant_flow(world.alice, world.bob.user_id, other))


def test_used_at_another_owner(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    world.serve("Tally", world.bob)
    own = issue(world.bob.identity, endpoint, world.mallory.user_id, int(time.time()) + 100)
    refused(world, world.mallory, endpoint, own)


@pytest.mark.parametrize("lifetime", [float("inf"), float("nan"), 1e30, -1e12])
def test_a_grant_without_an_end(world: World, lifetime: float) -> None:
    endpoint = world.serve("Tally", access="grant")
    with pytest.raises(GrantError):
        grant_flow(world.alice, world.bob.user_id, endpoint, lifetime=lifetime)
    with pytest.raises(GrantError):
        narrow_grant(
            world.bob, grant_flow(world.alice, world.bob.user_id, endpoint), world.carol.user_id, lifetime=1e12
        )


@pytest.mark.parametrize("token", ["", "cfg1.", "cfg1.AAAA", "x" * 5000, "cfg1." + "é" * 50, "cfg1." + "k" * 4000])
def test_garbage_for_a_grant(world: World, token: str) -> None:
    """Typed, at whichever end it is noticed, and the door stays open for others."""
    endpoint = world.serve("Tally", access="grant")
    with pytest.raises((GrantError, ValueError)):
        world.fetch(world.mallory, endpoint, grant=token)
    assert mounted(world.alice, endpoint) == []
    works(world, world.bob, endpoint, grant_flow(world.alice, world.bob.user_id, endpoint))


def test_expired_before_it_is_used(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint, lifetime=-1)
    refused(world, world.bob, endpoint, token, GrantExpiredError)


def test_used_on_after_it_has_expired(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    flow = works(world, world.bob, endpoint, grant_flow(world.alice, world.bob.user_id, endpoint, lifetime=3))
    becomes(GrantExpiredError, lambda: flow.ask({}, TIMEOUT))


def test_used_on_after_it_was_taken_back(world: World) -> None:
    """What was mounted by it is refused too, with nothing left of the messages; others' grants go on."""
    endpoint = world.serve("Tally", access="grant")
    token, other = (grant_flow(world.alice, world.bob.user_id, endpoint) for _ in range(2))
    flow, kept = (works(world, world.bob, endpoint, one) for one in (token, other))
    revoke_grant(world.alice, token)
    refused_with(GrantRevokedError, lambda: world.fetch(world.bob, endpoint, grant=token))
    becomes(GrantRevokedError, lambda: flow.ask({}, TIMEOUT))
    before = world.alice.read_keys(f"done:{flow.get_instance_id()}")
    refused_with(GrantRevokedError, lambda: flow.ask({}, TIMEOUT))
    assert world.alice.read_keys(f"done:{flow.get_instance_id()}") == before
    assert kept.ask({}, TIMEOUT)["count"] == 2
    assert [one.revoked for one in list_grants(world.alice) if one.endpoint == endpoint] == [True, False]
    release_flow_instance(world.bob, flow)
    assert len(mounted(world.alice, endpoint)) == 1, "he may still give back what he has"


def test_handed_on_before_it_was_taken_back(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint)
    less = narrow_grant(world.bob, token, world.mallory.user_id)
    flow = works(world, world.mallory, endpoint, less)
    revoke_grant(world.alice, read_grant(token).id)
    again = narrow_grant(world.bob, token, world.mallory.user_id)
    for one in (less, again):
        refused_with(GrantRevokedError, lambda: world.fetch(world.mallory, endpoint, grant=one))  # noqa: B023
    becomes(GrantRevokedError, lambda: flow.ask({}, TIMEOUT))


def test_taken_back_by_somebody_else(world: World) -> None:
    endpoint = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, endpoint)
    with pytest.raises(GrantError):
        revoke_grant(world.mallory, token)
    revoke_grant(world.mallory, read_grant(token).id)
    works(world, world.bob, endpoint, token)


# -- where else they are used ----------------------------------------------------------------------------------


def test_a_singleton_held_by_a_grant(world: World) -> None:
    """Its holder alone may send to it, for as long as the grant lasts; whoever learns its id may not."""
    endpoint = world.serve("Tally", access="grant", singleton=True)
    token = grant_flow(world.alice, world.bob.user_id, endpoint, instances=1, calls=3)
    flow = works(world, world.bob, endpoint, token)
    again = world.fetch(world.bob, endpoint, grant=token)
    assert again.address == flow.address and spent(world.alice, token)[:2] == (1, 1), "it is the same, and paid for"
    refused_with(InstanceNotFoundError, lambda: world.mallory.proxy(flow.address).ask({}, TIMEOUT))
    other = grant_flow(world.alice, world.carol.user_id, endpoint)
    assert world.fetch(world.carol, endpoint, grant=other).ask({}, TIMEOUT)["count"] == 2
    revoke_grant(world.alice, token)
    becomes(GrantRevokedError, lambda: flow.get_reply_future(flow.package_input_message({})).get_data(TIMEOUT))
    assert world.carol.proxy(flow.address).ask({}, TIMEOUT)["count"] >= 3


def test_a_subflows_grant_in_the_config(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bob's composite holds alice's flow by it; those who use bob's flow cannot put another one in its place."""
    inner = world.serve("Tally", access="grant")
    token = grant_flow(world.alice, world.bob.user_id, inner)
    spec = {"user_id": world.alice.user_id, "flow_endpoint": inner, "grant": token}
    monkeypatch.setitem(flows.Deputy.default_config["subflows_config"], "next", spec)
    outer = world.serve("Deputy", world.bob)
    assert get_flow_instance(world.bob, outer).ask({}, TIMEOUT)["count"] == 1
    assert world.fetch(world.mallory, outer, world.bob).ask({}, TIMEOUT)["count"] == 1
    other = grant_flow(world.alice, world.bob.user_id, inner, calls=1)
    for one in (spec, {"grant": other}, {"grant": None}):
        with pytest.raises(FlowConfigError, match="override"):
            world.fetch(world.mallory, outer, world.bob, config_overrides={"subflows_config": {"next": one}})
