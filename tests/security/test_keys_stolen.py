"""Who has a key that was given up, or an old or made-up certificate, forges nothing and reads nothing new."""

from __future__ import annotations

import time

import pytest

from coflows.broker.topology import route_to
from coflows.codec.wire import encode
from coflows.dead_letters import list_dead_letters
from coflows.errors import CertificateError, EnvelopeError, KeyRetiredError
from coflows.held_keys import StoredKeys, open_keyring, read_own
from coflows.identity.certificate import LAST, Certificate
from coflows.identity.keyring import Keyring
from coflows.identity.keys import Identity
from coflows.identity.sealing import Item, open_envelope, seal, seal_items
from coflows.model.calls import Call
from coflows.model.layout import KEYRING, PEER_KEYS, done_key, parked_key
from coflows.model.messages import new_message_id
from coflows.rotation import announce, end, learn, revoke, rotate
from coflows.serving import get_flow_instance, serve_flow
from tests.security.key_users import LIMIT, Users, opened_by, sealed, served, with_certificate
from tests.waiting import until
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread


def test_forging_the_owner_with_his_revoked_key_is_refused_by_who_has_heard(users: Users) -> None:
    owner, caller = served(users)
    stolen = seal(owner.identity, caller.user_id, new_message_id(), int(time.time()) + 60, b"x")
    assert opened_by(caller, stolen) == owner.user_id
    run_get_instance_worker_thread(caller)
    flow = get_flow_instance(caller, "tally", user_id=owner.user_id)
    assert flow.ask({}, timeout=30)
    revoke(owner)
    assert announce(owner) == 1
    until(caller.store, PEER_KEYS, lambda: caller.keyring.peer(owner.user_id) is not None, "the first key")
    with pytest.raises(KeyRetiredError):
        opened_by(caller, stolen)


def test_forging_anybody_to_the_owner_with_his_own_revoked_key_is_refused(users: Users) -> None:
    """Who has the secret of one end can seal in the name of any other: also in a friend's."""
    owner, caller = served(users)
    flow = get_flow_instance(caller, "tally", user_id=owner.user_id)
    revoke(owner)
    address, message_id = flow.address, new_message_id()
    forged = encode(Call(address.flow_id, {}, time.time()).to_dict())
    # The pair's first key is the same whoever of the two computes it.
    body = seal_items(caller.identity, owner.user_id, int(time.time()) + 60, [Item(message_id, forged)])
    owner.broker.publish(route_to(address).queue, body)
    assert flow.ask({}, timeout=30) == {"count": 1}
    reasons = [letter.reason.split(":")[0] for letter in list_dead_letters(owner)]
    assert reasons == ["key_retired"] * 2  # The forged one, and the caller's before he was told of the new key.
    assert owner.store.get(done_key(address.flow_id, message_id)) is None


def test_reading_what_is_new_with_a_revoked_key_is_impossible(users: Users) -> None:
    owner, caller = served(users)
    revoke(owner)
    learn(caller, owner.keyring.own.raw)  # type: ignore[union-attr]
    thief = Keyring(owner.identity)
    for body in (sealed(caller, owner.user_id), sealed(owner, caller.user_id)):
        with pytest.raises(EnvelopeError):
            open_envelope(owner.identity, body, time.time(), LIMIT, thief)
    assert opened_by(owner, sealed(caller, owner.user_id)) == caller.user_id


def test_rolling_a_peer_back_with_an_old_certificate_fails_also_after_a_restart(users: Users) -> None:
    owner, caller = users(2)
    rotate(owner)
    old, replayed = owner.keyring.own, sealed(owner, caller.user_id)
    assert old is not None and opened_by(caller, replayed) == owner.user_id
    revoke(owner)
    assert opened_by(caller, sealed(owner, caller.user_id)) == owner.user_id
    restarted = open_keyring(caller.identity, caller.store)
    restarted.reread()
    for known in (caller.keyring, restarted):
        assert not known.learn(old)
        assert known.peer(owner.user_id) == owner.keyring.own
        with pytest.raises(KeyRetiredError):
            open_envelope(caller.identity, replayed, time.time(), LIMIT, known)


def test_a_second_certificate_of_the_same_epoch_is_refused(users: Users) -> None:
    owner, caller = users(2)
    rotate(owner)
    assert opened_by(caller, sealed(owner, caller.user_id)) == owner.user_id
    twin = Keyring(owner.identity, StoredKeys(owner.identity, users(1)[0].store))
    other = Certificate.issue(owner.identity, 1, bytes(range(32)), {0: 2**40})
    body = with_certificate(owner, caller, other)
    assert twin.own is None and not caller.keyring.learn(other)
    with pytest.raises(CertificateError, match="two certificates"):
        opened_by(caller, body)


def test_a_certificate_counts_only_when_the_message_is_sealed_with_its_key(users: Users) -> None:
    owner, caller = users(2)
    rotate(owner)
    later = Certificate.issue(owner.identity, 7, bytes([9]) * 32, {})
    with pytest.raises(EnvelopeError):
        opened_by(caller, with_certificate(owner, caller, later))
    assert caller.keyring.peer(owner.user_id) is None


def test_anothers_certificate_is_refused(users: Users) -> None:
    owner, caller, eve = users(3)
    rotate(owner)
    rotate(eve)
    assert eve.keyring.own is not None
    with pytest.raises(CertificateError, match="not its sender"):
        opened_by(caller, with_certificate(owner, caller, eve.keyring.own))
    assert not caller.keyring.learn(Certificate.issue(caller.identity, 5, bytes(32), {}))  # Nor is one's own replaced.


def test_every_changed_byte_of_a_certificate_is_refused() -> None:
    raw = Certificate.issue(Identity.from_seed(bytes(32)), 3, bytes(range(32)), {1: 5, 2: 9}).raw
    for position in range(len(raw)):
        changed = bytearray(raw)
        changed[position] ^= 1
        with pytest.raises(CertificateError):
            Certificate.read(bytes(changed))
    for length in range(len(raw)):
        with pytest.raises(CertificateError):
            Certificate.read(raw[:length])
    with pytest.raises(CertificateError):
        Certificate.read(raw + bytes(2000))


def test_the_overlap_ends_and_the_secret_goes_with_the_next_key(users: Users) -> None:
    owner, caller = users(2)
    clock = [time.time()]
    for _ in range(2):
        rotate(owner, 100.0)
    learn(caller, owner.keyring.own.raw)  # type: ignore[union-attr]
    under_way = sealed(caller, owner.user_id)
    rotate(owner, 100.0)
    later = Keyring(owner.identity, StoredKeys(owner.identity, owner.store), lambda: clock[0])
    later.reread()
    assert open_envelope(owner.identity, under_way, clock[0], LIMIT, later).sender == caller.user_id
    clock[0] += 200.0
    with pytest.raises(KeyRetiredError):
        open_envelope(owner.identity, under_way, time.time(), LIMIT, later)
    revoke(owner)
    rotate(owner)
    assert set(read_own(owner.identity, owner.store.get(KEYRING)).secrets) == {4, 5}


def test_the_end_of_a_user_outdoes_every_later_certificate_of_a_thief(users: Users) -> None:
    owner, caller = users(2)
    run_get_instance_worker_thread(caller)
    serve_flow(caller, "tests.security.leaky_flow.Tally", "tally")
    get_flow_instance(owner, "tally", user_id=caller.user_id)
    end(owner)
    until(caller.store, PEER_KEYS, lambda: caller.keyring.peer(owner.user_id) is not None, "the first key")
    known = caller.keyring.peer(owner.user_id)
    assert known is not None and known.epoch == LAST
    forged = Certificate.issue(owner.identity, LAST - 1, bytes([9]) * 32, {0: 2**40})
    assert not caller.keyring.learn(forged)
    for use in (lambda: caller.keyring.way_to(owner.user_id), lambda: owner.keyring.way_to(caller.user_id)):
        owner.keyring.reread()
        with pytest.raises(KeyRetiredError, match="has ended"):
            use()
    with pytest.raises(KeyRetiredError):
        opened_by(caller, seal(owner.identity, caller.user_id, new_message_id(), int(time.time()) + 60, b"x"))
    with pytest.raises(KeyRetiredError):
        rotate(owner)


def test_what_a_turn_sends_to_a_user_who_has_ended_is_dropped(users: Users) -> None:
    """It would be sent again, and its message come again, for ever."""
    owner, peer = served(users)
    worker = run_dispatch_worker_thread(owner, "relays")
    run_get_instance_worker_thread(peer)
    serve_flow(peer, "tests.security.leaky_flow.Tally", "tally")
    serve_flow(owner, "tests.security.flows.Relay", "relay", "relays")
    there = get_flow_instance(owner, "tally", user_id=peer.user_id)
    relay = get_flow_instance(owner, "relay")
    learn(owner, end(peer).raw)
    assert relay.ask({"path": [there.address.to_dict()], "how": "push"}, timeout=30) == {}
    worker.stop()
    assert owner.broker.get(route_to(relay.address).queue) is None


def test_the_store_shows_no_secret_key_and_another_user_cannot_read_it(users: Users) -> None:
    owner, eve = users(2)
    rotate(owner)
    entry = owner.store.get(KEYRING)
    secret = read_own(owner.identity, entry).secrets[1]
    assert entry is not None and secret not in entry.value and owner.identity.seed not in entry.value
    with pytest.raises(Exception, match="another user's, or were changed"):
        read_own(eve.identity, entry)


def test_strangers_cannot_make_a_revoked_key_forgotten(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coflows.held_keys.MOST_PEERS", 3)
    owner, caller = users(2)
    revoke(owner)
    learn(caller, owner.keyring.own.raw)  # type: ignore[union-attr]
    for number in range(1, 10):
        stranger = Identity.from_seed(bytes([number]) * 32)
        caller.keyring.learn(Certificate.issue(stranger, 1, bytes([9]) * 32, {}))
    restarted = open_keyring(caller.identity, caller.store)
    restarted.reread()
    assert restarted.peer(owner.user_id) == owner.keyring.own
    assert len(caller.store.keys(PEER_KEYS)) == 3


def test_rolling_the_owners_store_back_brings_no_revoked_key_back(users: Users) -> None:
    owner, caller = users(2)
    rotate(owner)
    old = owner.store.get(KEYRING)
    assert old is not None
    revoke(owner)
    owner.store.commit({KEYRING: old.value})
    owner.keyring.reread()
    assert owner.keyring.own is not None and owner.keyring.own.epoch == 2
    with pytest.raises(KeyRetiredError):
        opened_by(owner, sealed(caller, owner.user_id))


def test_a_kept_message_says_in_the_owners_name_that_it_was_refused(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Delivered again after the key it is sealed for was given up, it had its owner tell a flow that waits for his
    reply that its message was not worked off, though it was, or is; so the flow might have had it done twice."""
    owner, caller = served(users)
    address = get_flow_instance(caller, "tally", user_id=owner.user_id).address
    reply = {"mode": "push", "flow_id": address.flow_id, "dispatch_point": "coflows_dispatch", "partition": 0}
    payload = encode(Call(address.flow_id, {}, time.time(), reply=reply).to_dict())

    def kept(message_id: str, valid: int = 60) -> bytes:
        item = Item(message_id, payload)
        return seal_items(caller.identity, owner.user_id, int(time.time()) + valid, [item])

    ids = [new_message_id() for _ in range(4)]
    bodies = [kept(ids[0]), kept(ids[1]), kept(ids[2]), kept(ids[3], -60)]
    revoke(owner)
    owner.store.commit({done_key(address.flow_id, ids[1]): b"", parked_key("point", 0, address.flow_id, ids[2]): b""})
    told: list[object] = []
    monkeypatch.setattr(owner.session, "send", lambda *said: told.append(said[3]))
    for body in bodies:
        with pytest.raises(KeyRetiredError):
            owner.session.open(body)
    assert [one.answers for one in told if isinstance(one, Call)] == ids[:1], "only what was not begun, and is valid"
