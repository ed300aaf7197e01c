"""Four users on one broker, an owner among them, with helpers for what they and an adversary do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from coflows import Client, start_users
from coflows.access.grants import read_grant
from coflows.errors import CoflowsError
from coflows.granting import list_grants
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.messages import new_message_id
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
FLOWS = "tests.security.flows"


class World(NamedTuple):
    """``alice`` serves; ``bob`` may do some things, and serves too; ``carol`` looks on; ``mallory`` attacks."""

    alice: Client
    bob: Client
    carol: Client
    mallory: Client

    def serve(self, flow_class: str, cl: Client | None = None, **options: Any) -> str:
        """A new endpoint of alice's (or ``cl``'s)."""
        name = f"{flow_class.lower()}-{new_message_id()[-8:]}"
        serve_flow(cl or self.alice, f"{FLOWS}.{flow_class}", name, **options)
        return name

    def fetch(self, cl: Client, endpoint: str, owner: Client | None = None, **options: Any) -> FlowProxy:
        return get_flow_instance(cl, endpoint, (owner or self.alice).user_id, timeout=TIMEOUT, **options)


@contextmanager
def world() -> Iterator[World]:
    clients = World(*start_users(4))
    try:
        for cl in clients[:2]:
            run_dispatch_worker_thread(cl)
            run_get_instance_worker_thread(cl)
        yield clients
    finally:
        for cl in reversed(clients):
            cl.close()


def send_call(cl: Client, to: InstanceAddress, call: Call, message_id: str | None = None) -> Any:
    """Send a call that no honest client makes, and give what becomes of it."""
    from coflows.broker.topology import route_to

    message_id, route = message_id or new_message_id(), route_to(to)
    call.reply = call.reply or cl.session.reply_to
    waiting = cl.session.expect(message_id, to.user_id)
    cl.session.send(route.queue, to.user_id, message_id, call).result(TIMEOUT)
    return waiting.result(TIMEOUT)


def refused_with(kind: type[CoflowsError], act: Callable[[], object], text: str | None = None) -> CoflowsError:
    with pytest.raises(kind, match=text) as caught:
        act()
    assert type(caught.value) is kind, caught.value
    return caught.value


def becomes(kind: type[CoflowsError], act: Callable[[], object], within: float = 5.0) -> CoflowsError:
    """Do something again until it is refused; within so many seconds, and some more for a machine that is busy."""
    deadline = time.monotonic() + within + 10
    while True:
        try:
            act()
        except kind as error:
            assert type(error) is kind, error
            return error
        assert time.monotonic() < deadline, f"it is still allowed after {within} s"


def spent(cl: Client, token: str) -> tuple[int, int, int]:
    return tuple(next(one.spent for one in list_grants(cl) if one.id == read_grant(token).id))


def mounted(cl: Client, endpoint: str) -> list[str]:
    return [key for key in cl.read_keys(f"flows:{endpoint}:mounts:") if key.endswith(":init")]


def works(world: World, cl: Client, endpoint: str, grant: str) -> FlowProxy:
    flow = world.fetch(cl, endpoint, grant=grant)
    assert flow.ask({}, TIMEOUT)["count"] == 1
    return flow
