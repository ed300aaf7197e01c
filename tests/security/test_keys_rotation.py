"""Keys are rotated and revoked under running flows, and nothing is lost: messages, instances, records, letters."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coflows import Client, connect
from coflows.broker import Broker
from coflows.broker.topology import dead_letter_queue
from coflows.dead_letters import list_dead_letters
from coflows.errors import BrokerUnavailableError, EnvelopeError, KeyRetiredError, StoreError
from coflows.held_keys import open_keyring, read_own
from coflows.identity import keyring
from coflows.identity.sealing import open_envelope, seal
from coflows.model.layout import KEYRING
from coflows.model.messages import new_message_id
from coflows.registry import RunningService
from coflows.rotation import announce, learn, revoke, rotate
from coflows.serving import get_flow_instance, serve_flow
from coflows.store import open_store
from tests.security.key_users import LIMIT, Users, opened_by, sealed, served
from tests.worker_processes import StartWorker
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread


def test_an_instance_goes_on_through_rotations_of_both(users: Users) -> None:
    owner, caller = served(users)
    flow = get_flow_instance(caller, "tally", user_id=owner.user_id)
    for number, (turned, how) in enumerate([(owner, rotate), (caller, rotate), (owner, revoke), (caller, revoke)], 1):
        assert flow.ask({}, timeout=30)["count"] == 2 * number - 1
        how(turned)
        assert flow.ask({}, timeout=30)["count"] == 2 * number
    assert owner.keyring.own is not None and owner.keyring.own.epoch == 2
    assert caller.keyring.peer(owner.user_id) == owner.keyring.own
    assert owner.keyring.peer(caller.user_id) == caller.keyring.own
    assert get_flow_instance(caller, "tally", user_id=owner.user_id).ask({}, timeout=30) == {"count": 1}


def test_what_is_under_way_to_a_rotated_key_is_worked_off(users: Users) -> None:
    owner, caller = users(2)
    serve_flow(owner, "tests.security.leaky_flow.Tally", "tally")
    with_door = run_get_instance_worker_thread(owner)
    flow = get_flow_instance(caller, "tally", user_id=owner.user_id)
    with_door.stop()
    futures = [flow.get_reply_future(flow.package_input_message({})) for _ in range(3)]
    rotate(owner)
    run_dispatch_worker_thread(owner)
    assert [future.get_data(timeout=30)["count"] for future in futures] == [1, 2, 3]


def test_what_is_under_way_to_a_revoked_key_is_sent_again_and_worked_off_once(users: Users) -> None:
    owner, caller = users(2)
    serve_flow(owner, "tests.security.leaky_flow.Tally", "tally")
    door = run_get_instance_worker_thread(owner)
    flow = get_flow_instance(caller, "tally", user_id=owner.user_id)
    door.stop()
    futures = [flow.get_reply_future(flow.package_input_message({})) for _ in range(3)]
    revoke(owner)
    run_dispatch_worker_thread(owner)
    assert [future.get_data(timeout=30)["count"] for future in futures] == [1, 2, 3]
    assert all(letter.reason.startswith("key_retired") for letter in list_dead_letters(owner))


def test_a_fetch_for_a_revoked_key_is_told_to_come_again(users: Users) -> None:
    owner, caller = served(users)
    _ = caller.session
    revoke(owner)
    with pytest.raises(EnvelopeError, match="Send it again"):
        get_flow_instance(caller, "tally", user_id=owner.user_id)
    assert get_flow_instance(caller, "tally", user_id=owner.user_id).ask({}, timeout=30) == {"count": 1}


def test_another_process_of_the_user_goes_over_to_his_new_key(users: Users) -> None:
    owner, caller = served(users)
    other = open_keyring(owner.identity, owner.store)
    other.reread()
    rotate(owner, 60.0)
    learn(caller, owner.keyring.own.raw)  # type: ignore[union-attr]
    # It has not read the store for less than two seconds, and opens what is for the new key all the same.
    body = sealed(caller, owner.user_id)
    assert open_envelope(owner.identity, body, time.time(), LIMIT, other).sender == caller.user_id


def test_two_who_rotate_at_once_make_two_epochs(users: Users) -> None:
    (owner,) = users(1)
    with ThreadPoolExecutor(8) as pool:
        epochs = sorted(made.epoch for made in pool.map(lambda _: rotate(owner), range(8)))
    assert epochs == list(range(1, 9))
    own = read_own(owner.identity, owner.store.get(KEYRING))
    assert own.certificate is not None and own.certificate.epoch == 8 and set(own.secrets) == set(range(1, 9))


def test_served_endpoints_the_owners_instances_and_his_record_stay_his(
    users: Users, serve: Callable[..., RunningService]
) -> None:
    owner, _ = served(users)
    local = get_flow_instance(owner, "tally")
    assert local.ask({}, timeout=30) == {"count": 1}
    service = serve(owner)
    revoke(owner)
    assert service.user_id == owner.user_id
    assert local.ask({}, timeout=30) == {"count": 2}
    assert get_flow_instance(owner, "tally").ask({}, timeout=30) == {"count": 1}


def test_an_instance_goes_on_after_a_poison_message_of_an_earlier_key(users: Users) -> None:
    owner, caller = served(users)
    flow = get_flow_instance(caller, "tally", user_id=owner.user_id)
    future = flow.get_reply_future(flow.package_input_message({"poison": True}))
    with pytest.raises(Exception, match="poison"):
        future.get_data(timeout=30)
    rotate(owner)
    assert flow.ask({}, timeout=30) == {"count": 1}
    assert owner.broker.get(dead_letter_queue(owner.user_id).name) is None


def test_a_worker_refuses_what_another_process_has_revoked(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    assert keyring.FRESH <= 5.0
    monkeypatch.setattr(keyring, "FRESH", 0.0)  # Instead of waiting for so long.
    owner, caller = served(users)
    body = sealed(caller, owner.user_id)
    elsewhere = open_keyring(owner.identity, owner.store)
    assert open_envelope(owner.identity, body, time.time(), LIMIT, elsewhere).sender == caller.user_id
    revoke(owner)
    with pytest.raises(KeyRetiredError):
        open_envelope(owner.identity, body, time.time(), LIMIT, elsewhere)


def test_a_peers_other_process_refuses_what_one_has_learnt_to_be_revoked(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "FRESH", 0.0)
    owner, caller = users(2)
    stolen = seal(owner.identity, caller.user_id, new_message_id(), int(time.time()) + 60, b"x")
    elsewhere = open_keyring(caller.identity, caller.store)
    assert open_envelope(caller.identity, stolen, time.time(), LIMIT, elsewhere).sender == owner.user_id
    revoke(owner)
    learn(caller, owner.keyring.own.raw)  # type: ignore[union-attr]
    with pytest.raises(KeyRetiredError):
        open_envelope(caller.identity, stolen, time.time(), LIMIT, elsewhere)


def test_a_session_does_not_open_before_it_knows_which_keys_count(
    users: Users, monkeypatch: pytest.MonkeyPatch
) -> None:
    (owner,) = users(1)

    def fails(*_: object) -> None:
        raise StoreError("Out of reach.")

    monkeypatch.setattr(owner.store, "get_many", fails)
    with pytest.raises(StoreError):
        _ = owner.session


def test_nothing_is_lost_or_done_twice_while_keys_change_under_load(start_worker: StartWorker) -> None:
    """The owner's worker is a process, his keys are changed by commands, and calls go on meanwhile."""
    with connect("owner") as owner:
        serve_flow(owner, "tests.security.leaky_flow.Tally", "tally")
        owner_id = owner.user_id
    start_worker()
    with connect("caller") as caller:
        flow = get_flow_instance(caller, "tally", user_id=owner_id)
        counts, ended = [flow.ask({}, timeout=60)["count"]], threading.Event()

        def call() -> None:
            while not ended.is_set():
                counts.append(flow.ask({}, timeout=60)["count"])

        calling = threading.Thread(target=call)
        calling.start()
        try:
            for words in (("rotate",), ("revoke",)):
                command = [sys.executable, "-m", "coflows.cli", "--as", "owner", "key", *words]
                assert b"Told 1 peer." in subprocess.run(command, check=True, capture_output=True).stdout
            rotate(caller)
        finally:
            ended.set()
            calling.join()
        # The worker seals with the new key within two seconds, and the caller has it from the first such reply.
        while (peer := caller.keyring.peer(owner_id)) is None or peer.epoch < 2:
            counts.append(flow.ask({}, timeout=60)["count"])
        assert counts == list(range(1, len(counts) + 1))


def test_who_has_lost_his_store_comes_back_with_a_later_epoch(users: Users, tmp_path: Path) -> None:
    owner, caller = users(2)
    for _ in range(3):
        revoke(owner)
    assert opened_by(caller, sealed(owner, caller.user_id)) == owner.user_id
    fresh = open_store(f"sqlite:///{tmp_path}/fresh.db", namespace=owner.user_id)
    with Client(owner.identity, fresh, lambda: owner.broker, owner.settings) as lost:
        rotate(lost)
        with pytest.raises(KeyRetiredError):
            opened_by(caller, sealed(lost, caller.user_id))
        rotate(lost, epoch=10)
        assert opened_by(caller, sealed(lost, caller.user_id)) == owner.user_id


def test_a_new_key_counts_also_when_no_broker_is_there_to_tell_of_it(users: Users) -> None:
    owner, peer = users(2)
    learn(owner, rotate(peer).raw)

    def nowhere() -> Broker:
        raise BrokerUnavailableError("Nothing answers.")

    with Client(owner.identity, owner.store, nowhere, owner.settings) as alone:
        revoke(alone)
        assert announce(alone) == 0 and alone.keyring.own is not None
