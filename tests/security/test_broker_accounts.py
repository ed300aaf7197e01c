"""A user with an account on RabbitMQ tries every door that is not his, against a real broker."""

from __future__ import annotations

import re
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, NamedTuple

import httpx
import pika
import pika.exceptions
import pytest
from pika.adapters.blocking_connection import BlockingChannel

from coflows import Client, connect
from coflows.broker import QueueSpec
from coflows.broker.permissions import permissions_of
from coflows.broker.rabbitmq import RabbitMQBroker
from coflows.broker.rabbitmq_accounts import Accounts
from coflows.broker.rabbitmq_admin import RabbitAdmin
from coflows.broker.rabbitmq_delivery import death
from coflows.broker.topology import (
    ACCOUNTS,
    dead_letter_queue,
    dispatch_queue,
    door_exchange,
    door_queue,
    session_queue,
)
from coflows.errors import (
    AccountExistsError,
    AccountNotFoundError,
    BrokerAuthError,
    NameInvalidError,
    UnroutableError,
)
from coflows.identity.keys import Identity
from coflows.identity.sealing import seal
from coflows.model.messages import new_message_id
from coflows.serving import get_flow_instance, serve_flow
from tests.security.broker_attacker import Attacker, RawHeaders, table
from tests.services.rabbitmq import RabbitMQ
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

pytestmark = pytest.mark.rabbitmq
PATIENCE = 30.0


class World(NamedTuple):
    """Alice, whose worker serves ``counter``; Bob, who has it; and Mallory, who has an account like theirs."""

    alice: Client
    bob: Client
    counter: Any
    mallory: Attacker
    mallory_id: str
    mallory_url: str
    bob_url: str
    alice_url: str
    accounts: Accounts

    def goes_on(self) -> bool:
        """Whether Alice still answers Bob."""
        return bool(self.counter.ask({}, timeout=PATIENCE)["count"] > 0)

    def own(self, name: str) -> str:
        """A name in Mallory's part of the broker."""
        return f"coflows.{self.mallory_id}.{name}"

    def alice_queue(self, name: str) -> str:
        """A name in Alice's."""
        return f"coflows.{self.alice.user_id}.{name}"

    @property
    def doors(self) -> list[str]:
        """Alice's queues that anybody may send to."""
        return [door_queue(self.alice.user_id).name, dispatch_queue(self.alice.user_id, "coflows_dispatch", 0).name]

    @property
    def door(self) -> str:
        """The exchange that leads to them."""
        return door_exchange(self.alice.user_id)

    @property
    def dead(self) -> str:
        """Where Alice's dead letters are."""
        return dead_letter_queue(self.alice.user_id).name


@pytest.fixture(scope="module")
def accounts(rabbitmq_node: RabbitMQ) -> Iterator[Accounts]:
    with RabbitAdmin(rabbitmq_node.admin_url()) as admin:
        yield Accounts(admin)
        admin.delete("exchanges", "/", ACCOUNTS)  # For the tests to come there are none.


@pytest.fixture(scope="module")
def world(rabbitmq_node: RabbitMQ, accounts: Accounts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("COFLOWS_HOME", str(tmp_path_factory.mktemp("home")))
        identities = [Identity.generate() for _ in range(3)]
        urls = []
        for one in identities:
            urls.append(accounts.broker_url(one.user_id, accounts.add(one.user_id), rabbitmq_node.url))
            stack.callback(accounts.remove, one.user_id, with_queues=True)
        alice, bob = (stack.enter_context(connect(one, url)) for one, url in zip(identities[:2], urls, strict=False))
        run_dispatch_worker_thread(alice)
        run_get_instance_worker_thread(alice)
        serve_flow(alice, "CounterFlowModule.CounterFlow", "counter")
        counter = get_flow_instance(bob, "counter", user_id=alice.user_id)
        mallory = identities[2].user_id
        yield World(alice, bob, counter, Attacker(urls[2]), mallory, urls[2], urls[1], urls[0], accounts)


def dead_letters(world: World) -> list[Any]:
    """What is in Alice's dead-letter queue; it is gone from there."""
    return list(iter(lambda: taken(world.alice, world.dead), None))


def taken(cl: Client, queue: str) -> Any:
    delivery = cl.broker.get(queue)
    if delivery is not None:
        delivery.ack()
    return delivery


# -- what accounts are for ----------------------------------------------------------------------------------------


def test_users_with_accounts_serve_fetch_and_ask(world: World) -> None:
    assert world.goes_on()


def test_a_user_without_an_account_and_one_with_one_reach_each_other(
    world: World, users: Callable[..., list[Client]], rabbitmq_node: RabbitMQ
) -> None:
    (guest,) = users(1, broker_url=rabbitmq_node.url)
    assert get_flow_instance(guest, "counter", user_id=world.alice.user_id).ask({}, timeout=PATIENCE) == {"count": 1}


def test_what_an_owner_rejects_is_among_his_dead_letters(world: World) -> None:
    world.mallory.attempt(world.mallory.publish(world.door, world.doors[0], b"no envelope"))
    while not (letters := dead_letters(world)):
        threading.Event().wait(0.02)
    assert (letters[0].body, letters[0].origin) == (b"no envelope", world.doors[0])


# -- names and passwords ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [".*", "a|.*", "(?:)", "a" * 51 + "*", "a" * 52 + "\n", "guest", "a" * 20 + "." * 32])
def test_a_user_name_that_is_a_regex_gets_no_account(accounts: Accounts, name: str) -> None:
    for attempt in (accounts.add, accounts.rotate, accounts.remove):
        with pytest.raises(NameInvalidError):
            attempt(name)


def test_the_patterns_of_an_account_match_no_neighbours_names() -> None:
    me, other = Identity.generate().user_id, Identity.generate().user_id
    foreign = [one.name for one in (door_queue(other), dispatch_queue(other, "p", 1), session_queue(other, "0" * 32))]
    foreign += [dead_letter_queue(other).name, f"x.coflows.{me}.dead", f"coflowsx{me}.dead", f"coflows.{me}x.dead"]
    foreign += [
        "coflows.",
        f"coflowsxin.{me}",
        "amq.default",
        "",
        ACCOUNTS,
    ]
    allowed = permissions_of(me)
    for pattern in allowed:
        assert not any(re.search(pattern.replace(r"\z", r"\Z"), name) for name in foreign)
        assert re.search(pattern.replace(r"\z", r"\Z"), door_queue(me).name)
    may = [[bool(re.search(one.replace(r"\z", r"\Z"), door_exchange(name))) for name in (me, other)] for one in allowed]
    assert may == [[False, False], [True, True], [True, False]]
    assert not re.search(allowed.read.replace(r"\z", r"\Z"), f"{door_exchange(me)}\n")


def test_an_account_taken_over_by_adding_it_again_is_refused(world: World) -> None:
    with pytest.raises(AccountExistsError):
        world.accounts.add(world.mallory_id)
    world.mallory.attempt(lambda channel: None)


def test_an_old_password_opens_nothing_and_ends_what_it_had_opened(accounts: Accounts, rabbitmq_node: RabbitMQ) -> None:
    user_id = Identity.generate().user_id
    old = accounts.broker_url(user_id, accounts.add(user_id), rabbitmq_node.url)
    try:
        with Attacker(old).channel() as channel:
            new = accounts.broker_url(user_id, accounts.rotate(user_id), rabbitmq_node.url)
            with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
                while True:
                    channel.connection.process_data_events(PATIENCE)
        with pytest.raises(BrokerAuthError):
            RabbitMQBroker(old)
        RabbitMQBroker(new).close()
    finally:
        accounts.remove(user_id)
    with pytest.raises(BrokerAuthError):
        RabbitMQBroker(new)
    with pytest.raises(AccountNotFoundError):
        accounts.rotate(user_id)


# -- reading what is another's ------------------------------------------------------------------------------------


def test_a_foreign_queue_is_not_read(world: World) -> None:
    for queue in (*world.doors, world.dead):
        assert world.mallory.refused(lambda channel, queue=queue: channel.basic_get(queue))
        assert world.mallory.refused(
            lambda channel, queue=queue: channel.basic_consume(queue, lambda *_: None, exclusive=True)
        )


@pytest.mark.parametrize("key", ["#", "{door}", "{session}"])
@pytest.mark.parametrize("into", ["queue", "exchange"])
def test_a_foreign_bind_gets_no_copies(world: World, key: str, into: str) -> None:
    key = key.format(door=world.doors[0], session=session_queue(world.alice.user_id, "0" * 32).name)
    own = world.own("spy")

    def bind(channel: BlockingChannel) -> None:
        if into == "queue":
            channel.queue_declare(own)
            channel.queue_bind(own, world.door, key)
        else:
            channel.exchange_declare(own, "fanout")
            channel.exchange_bind(own, world.door, key)

    assert world.mallory.refused(bind)


def test_a_foreign_queue_is_not_bound_elsewhere_nor_cut_off(world: World) -> None:
    own = world.own("spy")
    world.mallory.attempt(lambda channel: channel.exchange_declare(own, "fanout"))
    for queue in (*world.doors, world.dead):
        assert world.mallory.refused(lambda channel, queue=queue: channel.queue_bind(queue, own))
        assert world.mallory.refused(lambda channel, queue=queue: channel.queue_unbind(queue, world.door, queue))
    assert world.goes_on()


def test_a_passive_declare_tells_that_a_foreign_queue_is_there_and_how_full_and_no_more(world: World) -> None:
    """RabbitMQ asks no permission for it: the threat model says so."""
    told = world.mallory.attempt(lambda channel: channel.queue_declare(world.doors[0], passive=True)).method
    assert (told.message_count, told.consumer_count) == (0, 1)
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        unknown = door_queue(Identity.generate().user_id).name
        world.mallory.attempt(lambda channel: channel.queue_declare(unknown, passive=True))
    assert caught.value.reply_code == 404


def test_who_uses_anothers_account_is_told_so(world: World) -> None:
    with pytest.raises(BrokerAuthError) as caught, connect(Identity.generate(), world.bob_url) as stranger:
        get_flow_instance(stranger, "counter", world.alice.user_id)
    assert "add-user" in caught.value.hint and "set_permissions" not in caught.value.hint


# -- changing what is another's -----------------------------------------------------------------------------------


def test_a_foreign_queue_is_not_deleted_purged_or_made(world: World) -> None:
    for queue in (*world.doors, world.dead, session_queue(world.alice.user_id, "1" * 32).name, "amq.gen-x", "other"):
        assert world.mallory.refused(lambda channel, queue=queue: channel.queue_delete(queue))
        assert world.mallory.refused(lambda channel, queue=queue: channel.queue_purge(queue))
        assert world.mallory.refused(lambda channel, queue=queue: channel.queue_declare(queue))
    assert world.mallory.refused(lambda channel: channel.queue_declare("", exclusive=True))
    assert world.goes_on()


def test_an_exchange_is_not_redeclared_deleted_or_led_elsewhere(world: World) -> None:
    own = world.own("sink")
    world.mallory.attempt(lambda channel: channel.exchange_declare(own, "fanout"))
    for exchange in (world.door, door_exchange(world.mallory_id), ACCOUNTS, world.dead, "amq.topic", "other"):
        assert world.mallory.refused(lambda channel, name=exchange: channel.exchange_delete(name))
        assert world.mallory.refused(lambda channel, name=exchange: channel.exchange_declare(name, "fanout"))
        assert world.mallory.refused(
            lambda channel, name=exchange: channel.exchange_declare(
                name, "topic", durable=True, arguments={"alternate-exchange": own}
            )
        )
    assert world.goes_on()


def test_policies_and_management_are_out_of_reach(world: World, rabbitmq_node: RabbitMQ) -> None:
    place = str(httpx.URL(rabbitmq_node.admin_url()).copy_with(username=None, password=None))
    account = (world.mallory_id, str(pika.URLParameters(world.mallory_url).credentials.password))
    policy = {"pattern": ".*", "definition": {"max-length": 1}, "apply-to": "queues"}
    asked: list[tuple[str, str, Any]] = [
        ("GET", "whoami", None),
        ("GET", "overview", None),
        ("GET", "queues", None),
        ("PUT", "policies/%2F/mine", policy),
        ("PUT", f"users/{world.mallory_id}", {"password": "x", "tags": "administrator"}),
        ("POST", "exchanges/%2F/amq.default/publish", {"routing_key": world.dead, "payload": "x"}),
    ]
    answers = [httpx.request(how, f"{place}/api/{what}", json=value, auth=account) for how, what, value in asked]
    assert {answer.status_code for answer in answers} == {401}


# -- sending what is not to be sent -------------------------------------------------------------------------------


def test_a_spoofed_user_id_is_refused(world: World) -> None:
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        world.mallory.attempt(
            world.mallory.publish(world.door, world.doors[0], said=pika.BasicProperties(user_id=world.bob.user_id))
        )
    assert caught.value.reply_code == 406


@pytest.mark.parametrize("said", [None, "{mallory}"], ids=["missing", "own"])
def test_a_missing_user_id_makes_nobody_else_of_its_sender(world: World, said: str | None) -> None:
    """Who sent it is proven by the key it is sealed with, not by what the broker says of it."""
    alice, stranger = world.alice.user_id, Identity.generate()
    sealed = bytearray(seal(stranger, alice, new_message_id(), 2**32, b"x"))
    forged = bytes(sealed).replace(stranger.public_key, world.bob.identity.public_key)
    assert forged != sealed
    properties = pika.BasicProperties(user_id=said and said.format(mallory=world.mallory_id))
    dead_letters(world)
    world.mallory.attempt(world.mallory.publish(world.door, world.doors[0], forged, properties))
    while not (letters := dead_letters(world)):
        threading.Event().wait(0.02)
    assert letters[0].body == forged and letters[0].reason.startswith("envelope")
    assert world.goes_on()


@pytest.mark.parametrize("exchange", ["", "amq.direct", "amq.topic", "amq.fanout", "{dead}"])
def test_no_other_exchange_takes_messages(world: World, exchange: str) -> None:
    for key in (*world.doors, world.dead):
        assert world.mallory.refused(world.mallory.publish(exchange.format(dead=world.dead), key))


@pytest.mark.parametrize("key", ["{dead}", "x", "#", "", "coflows.#"])
def test_a_routing_key_that_is_no_door_leads_nowhere(world: World, key: str) -> None:
    dead_letters(world)
    with world.mallory.channel() as channel:
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.UnroutableError):
            channel.basic_publish(world.door, key.format(dead=world.dead), b"hostile", mandatory=True)
    assert dead_letters(world) == []


@pytest.mark.parametrize("header", ["CC", "BCC"])
def test_a_cc_or_bcc_header_reaches_no_foreign_queue_but_doors(world: World, header: str) -> None:
    """RabbitMQ asks no permission for these keys; they lead where the exchange leads."""
    dead_letters(world)
    bob = [door_queue(world.bob.user_id).name, dead_letter_queue(world.bob.user_id).name]
    with world.mallory.channel() as channel:
        channel.confirm_delivery()
        properties = pika.BasicProperties(headers={header: [world.dead, "#", "amq.default", *bob]})
        with pytest.raises(pika.exceptions.UnroutableError):
            channel.basic_publish(world.door, "nowhere", b"hostile", properties, mandatory=True)
    assert dead_letters(world) == [] and not any(taken(world.bob, queue) for queue in bob)


@pytest.mark.parametrize("through", ["", "{dead}"], ids=["default exchange", "alice's own"])
def test_a_dead_letter_exchange_that_leads_to_foreign_queues_is_refused(world: World, through: str) -> None:
    arguments = {"x-dead-letter-exchange": through.format(dead=world.dead), "x-dead-letter-routing-key": world.dead}
    own = world.own("trap")
    assert world.mallory.refused(lambda channel: channel.queue_declare(own, arguments=arguments))


def test_an_alternate_exchange_that_is_anothers_is_refused(world: World) -> None:
    arguments, own = {"alternate-exchange": world.dead}, world.own("front")
    assert world.mallory.refused(lambda channel: channel.exchange_declare(own, "fanout", arguments=arguments))


def bounce(world: World, key: str, sender: Callable[[str], Any]) -> None:
    """Have the broker itself send on what ``sender`` sends to a queue of Mallory's: as a dead letter, with a routing
    key that he chose."""
    trap = world.own("dispatch.trap")
    arguments = {"x-dead-letter-exchange": world.door, "x-dead-letter-routing-key": key}
    with world.mallory.channel() as channel:
        channel.queue_declare(trap, arguments=arguments)
        channel.queue_bind(trap, door_exchange(world.mallory_id), trap)
        sender(trap)
        method, _, _ = channel.basic_get(trap)
        channel.basic_reject(method.delivery_tag, requeue=False)
        channel.queue_delete(trap)


def test_a_dead_letter_routing_key_reaches_no_foreign_queue_but_doors(world: World) -> None:
    dead_letters(world)
    bounce(world, world.dead, lambda trap: world.bob.broker.publish(trap, b"bounced"))
    bounce(world, world.doors[0], lambda trap: world.bob.broker.publish(trap, b"bounced after"))
    while not (letters := dead_letters(world)):
        threading.Event().wait(0.02)
    assert [letter.body for letter in letters] == [b"bounced after"]  # Through her door, and rejected there.


def test_a_dead_letter_routing_key_spoofs_no_sender(world: World) -> None:
    """What Bob sealed for Mallory, his name checked by the broker, comes to Alice as a dead letter of Mallory's."""
    dead_letters(world)
    sealed = seal(world.bob.identity, world.mallory_id, new_message_id(), 2**32, b"for mallory")
    properties = pika.BasicProperties(user_id=world.bob.user_id)

    def send(trap: str) -> None:
        with Attacker(world.bob_url).channel() as channel:
            channel.confirm_delivery()
            channel.basic_publish(door_exchange(world.mallory_id), trap, sealed, properties, mandatory=True)

    bounce(world, world.doors[0], send)
    while not (letters := dead_letters(world)):
        threading.Event().wait(0.02)
    assert letters[0].body == sealed and letters[0].reason.startswith("envelope")


def test_an_own_exchange_in_front_of_the_doors_opens_nothing_more(world: World) -> None:
    dead_letters(world)
    own = world.own("front")
    with world.mallory.channel() as channel:
        channel.exchange_declare(own, "fanout", auto_delete=True)
        channel.exchange_bind(world.door, own)
        channel.confirm_delivery()
        with pytest.raises(pika.exceptions.UnroutableError):
            channel.basic_publish(own, world.dead, b"through the front", mandatory=True)
        channel.exchange_unbind(world.door, own)
    assert dead_letters(world) == []


# -- what a message says of itself --------------------------------------------------------------------------------


def deep_tables() -> bytes:
    value = b"V"
    for _ in range(10_000):
        value = b"F" + table(b"t", value)
    return value


HOSTILE_HEADERS: dict[str, pika.BasicProperties] = {
    "x-death that is text": pika.BasicProperties(headers={"x-death": "forged"}),
    "x-death of texts": pika.BasicProperties(headers={"x-death": ["forged"]}),
    "x-death of numbers": pika.BasicProperties(headers={"x-death": [{"queue": 7, "reason": [1]}]}),
    "x-death of another": pika.BasicProperties(headers={"x-death": [{"queue": "coflows.x", "reason": "rejected"}]}),
    "our own headers": pika.BasicProperties(headers={"coflows-origin": ["forged"], "coflows-reason": 7}),
    "a time beyond the calendar": RawHeaders(b"when", b"T" + struct.pack(">Q", 2**62)),
    "tables ten thousand deep": RawHeaders(b"deep", deep_tables()),
}


@pytest.mark.parametrize("what", HOSTILE_HEADERS)
def test_hostile_headers_neither_break_the_connection_nor_forge_an_origin(world: World, what: str) -> None:
    dead_letters(world)
    world.mallory.attempt(world.mallory.publish(world.door, world.doors[0], b"no envelope", HOSTILE_HEADERS[what]))
    while not (letters := dead_letters(world)):
        threading.Event().wait(0.02)
    assert (letters[0].body, letters[0].origin) == (b"no envelope", world.doors[0])
    assert world.goes_on()


@pytest.mark.parametrize(
    "forged", [{"x-death": [{"queue": "coflows.x", "reason": "expired"}]}, {"coflows-origin": "x"}]
)
def test_a_forged_x_death_neither_hides_a_dead_letter_nor_its_origin(world: World, forged: dict[str, Any]) -> None:
    """One that the broker itself makes of it, without a copy of ours."""
    queue, dead = world.alice_queue("dispatch.other"), dead_letter_queue(world.alice.user_id)
    dead_letters(world)
    with RabbitMQBroker(world.alice_url) as first, RabbitMQBroker(world.alice_url) as second:
        first.declare(dead, QueueSpec(queue, dead_letter_queue=dead.name))
        forged_for = {**forged, "x-first-death-queue": dead.name, "x-first-death-exchange": dead.name}
        properties = pika.BasicProperties(headers=forged_for)
        world.mallory.attempt(world.mallory.publish(world.door, queue, b"forged", properties))
        while (delivery := second.get(queue)) is None:
            threading.Event().wait(0.02)
        delivery.reject("by somebody who does not know where to")
        while not (letters := dead_letters(world)):
            threading.Event().wait(0.02)
        first.delete(queue)
    assert (letters[0].body, letters[0].origin, letters[0].reason) == (b"forged", queue, "rejected")


@pytest.mark.parametrize(
    "headers", [{}, {"x-death": []}, {"x-death": [None]}, {"coflows-origin": b"\xff"}, {"x-death": 1}]
)
def test_headers_that_name_no_origin_name_none(headers: dict[str, Any]) -> None:
    assert death(headers) == (None, None)


# -- who is not there ---------------------------------------------------------------------------------------------


def test_messages_to_users_who_do_not_exist_cost_others_nothing(world: World) -> None:
    """An account's exchange that is not there would close the channel of all that is under way."""
    with RabbitMQBroker(world.bob_url) as broker:
        unknown = [door_queue(Identity.generate().user_id).name for _ in range(20)]
        futures = [broker.publish_async(queue, b"x") for queue in unknown for _ in range(3)]
        known = [broker.publish_async(world.doors[0], b"no envelope") for _ in range(10)]
        for future in known:
            future.result(PATIENCE)
        for future in futures:
            with pytest.raises(UnroutableError):
                future.result(PATIENCE)
        with pytest.raises(UnroutableError):
            broker.publish("x", b"x")
        assert broker._publisher._channel.channel_number == 1
    while len(dead_letters(world)) > 0:
        threading.Event().wait(0.02)


def test_a_user_whose_account_was_removed_is_unknown(world: World, rabbitmq_node: RabbitMQ) -> None:
    gone = Identity.generate().user_id
    door = door_queue(gone)
    with RabbitMQBroker(world.accounts.broker_url(gone, world.accounts.add(gone), rabbitmq_node.url)) as broker:
        broker.declare(dead_letter_queue(gone), door)
        world.bob.broker.publish(door.name, b"x")
        world.accounts.remove(gone)
    for _ in range(2):
        with pytest.raises(UnroutableError):
            world.bob.broker.publish(door.name, b"x")
    assert world.goes_on()


def test_who_had_queues_before_he_had_an_account_keeps_them(world: World, rabbitmq_node: RabbitMQ) -> None:
    user_id = Identity.generate().user_id
    dead, door = dead_letter_queue(user_id), door_queue(user_id)
    with RabbitMQBroker(rabbitmq_node.url) as before:
        before.declare(dead, door)
        before.publish(door.name, b"kept")
        url = world.accounts.broker_url(user_id, world.accounts.add(user_id), rabbitmq_node.url)
        with RabbitMQBroker(url) as broker:
            broker.declare(dead, door)
            world.bob.broker.publish(door.name, b"new")
            first, second = broker.get(door.name), broker.get(door.name)
            assert first is not None and second is not None
            assert [first.body, second.body] == [b"kept", b"new"]
            first.reject("no")
            while (letter := broker.get(dead.name)) is None:
                threading.Event().wait(0.02)
            assert (letter.body, letter.origin, letter.reason) == (b"kept", door.name, "no")
        world.accounts.remove(user_id, with_queues=True)
        assert not before.exists(door.name) and not before.exists(dead.name)
