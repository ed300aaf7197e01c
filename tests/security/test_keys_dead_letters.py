"""Dead letters of before a user got another key: shown, and replayed once; or not, with an error that says why."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import NamedTuple

import pytest

from coflows import Client
from coflows.broker.base import Delivery
from coflows.broker.topology import route_to
from coflows.dead_letters import (
    OpenedLetter,
    list_dead_letters,
    replay_dead_letter,
    replay_dead_letters,
    show_dead_letter,
)
from coflows.errors import DeadLetterNotFoundError, KeyRetiredError
from coflows.futures import FlowFuture
from coflows.model.layout import dead_key
from coflows.proxy import FlowProxy
from coflows.rotation import end, learn, revoke, rotate
from coflows.serving import get_flow_instance, serve_flow
from tests.security.key_users import Users
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
How = Callable[[Client], object]


class World(NamedTuple):
    """An owner without a dispatch worker, and a caller with an instance of his and a message in its queue."""

    owner: Client
    caller: Client
    flow: FlowProxy
    future: FlowFuture

    def reject(self) -> str:
        """Have the broker make a dead letter of what is in the queue; gives its id."""
        rejected = threading.Event()

        def refuse(delivery: Delivery) -> None:
            delivery.reject("test: not today")
            rejected.set()

        consumer = self.owner.broker.consume(route_to(self.flow.address).queue, refuse)
        assert rejected.wait(TIMEOUT)
        consumer.close()
        while not (letters := list_dead_letters(self.owner)):
            continue  # The broker moves it.
        return letters[0].id


def renew(one: Client, other: Client, how: How) -> None:
    """One gets another key, or ends, and the other one knows."""
    how(one)
    one.keyring.reread()
    assert one.keyring.own is not None
    learn(other, one.keyring.own.raw)


@pytest.fixture
def world(users: Users) -> World:
    owner, caller = users(2)
    serve_flow(owner, "tests.security.leaky_flow.Tally", "tally")
    run_get_instance_worker_thread(owner)
    address = get_flow_instance(caller, "tally", user_id=owner.user_id).address
    flow = FlowProxy(address, caller, in_order=False)  # What comes later does not wait for the letter.
    return World(owner, caller, flow, flow.get_reply_future(flow.package_input_message({})))


@pytest.mark.parametrize("who", ["owner", "caller", "both"])
def test_what_was_rejected_before_a_rotation_is_replayed_once(world: World, who: str) -> None:
    letter = world.reject()
    for one, other in ((world.owner, world.caller), (world.caller, world.owner)):
        if who == "both" or one is getattr(world, who):
            renew(one, other, rotate)
    found, _ = show_dead_letter(world.owner, letter)
    assert found.reason == "test: not today"
    assert replay_dead_letter(world.owner, letter).id == letter
    with pytest.raises(DeadLetterNotFoundError):
        replay_dead_letter(world.owner, letter)
    run_dispatch_worker_thread(world.owner)
    assert world.future.get_data(TIMEOUT) == {"count": 1}
    assert world.flow.ask({}, TIMEOUT) == {"count": 2}
    assert list_dead_letters(world.owner) == []


@pytest.mark.parametrize("who", ["owner", "caller"])
@pytest.mark.parametrize("how", [revoke, end])
def test_what_is_sealed_with_an_ended_key_is_shown_and_not_replayed(world: World, who: str, how: How) -> None:
    letter = world.reject()
    one, other = (world.owner, world.caller) if who == "owner" else (world.caller, world.owner)
    renew(one, other, how)
    for _ in range(2):
        with pytest.raises(KeyRetiredError, match="sender has to send it again"):
            replay_dead_letter(world.owner, letter)
        assert replay_dead_letters(world.owner) == []
        assert show_dead_letter(world.owner, letter)[0].id == letter


@pytest.mark.parametrize("how", [rotate, revoke])
def test_what_was_opened_before_both_got_new_keys_is_replayed_once(world: World, how: How) -> None:
    queue, address = route_to(world.flow.address).queue, world.flow.address
    taken = world.owner.broker.get(queue)
    assert taken is not None
    taken.ack()
    (item,) = world.owner.session.open(taken.body).items
    letter = OpenedLetter(
        address.dispatch_point,
        address.partition,
        world.caller.user_id,
        item.message_id,
        address.flow_id,
        "poison_message",
        item.payload,
    )
    world.owner.store.commit({dead_key(letter.id): letter.encode()})
    for one, other in ((world.owner, world.caller), (world.caller, world.owner)):
        renew(one, other, how)
    assert show_dead_letter(world.owner, letter.id)[1]["flow_id"] == address.flow_id
    for _ in range(2):
        replay_dead_letter(world.owner, letter.id)
    run_dispatch_worker_thread(world.owner)
    assert world.future.get_data(TIMEOUT) == {"count": 1}
    assert world.flow.ask({}, TIMEOUT) == {"count": 2}
    with pytest.raises(DeadLetterNotFoundError):
        show_dead_letter(world.owner, letter.id)
