"""What one user piles up so that others' never has its turn, and what he leaves behind for ever."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import nacl.bindings
import pytest

from coflows import Client, keeping, marks, refusals, usage
from coflows.broker.topology import door_queue
from coflows.codec.wire import encode
from coflows.dead_letters import list_dead_letters
from coflows.dispatch import clock, intake, sequencing
from coflows.dispatch.clock import Clock
from coflows.dispatch.gate import check_paid_by
from coflows.dispatch.timers import Fired, timer_id
from coflows.dispatch.worker import DispatchWorker
from coflows.errors import AccessDeniedError, QuotaExceededError
from coflows.failpoints import Failpoints
from coflows.identity.certificate import Certificate
from coflows.identity.keys import Identity
from coflows.keeping import Probation, sweep
from coflows.model.layout import KEEPING, RELEASED, due_key, due_prefix, keeping_key
from coflows.model.messages import new_message_id
from coflows.model.wire import Release
from coflows.quotas.quota import Quota
from coflows.serving import delete_flow_instance, get_flow_instance, serve_flow
from coflows.store.base import Entry
from coflows.usage import Amount, Usage
from tests.waiting import until
from workers import run_get_instance_worker_thread

TIMEOUT = 30
Users = Callable[..., list[Client]]


def flow_id(number: int) -> str:
    return f"{number:08x}-0000-0000-0000-000000000000"


def test_timers_that_nobody_works_off_hold_up_no_others(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of an instance whose turns take long: of the first 256 that are due none went, and so no other either."""
    monkeypatch.setattr(clock, "PAGE", 100)
    monkeypatch.setattr(clock, "PAGES", 2)
    (owner,) = users(1)
    now = time.time()
    stuck = [timer_id(now - 60, new_message_id()) for _ in range(300)]
    others = due_key("point", timer_id(now - 30, new_message_id()), 0, flow_id(1))
    writes = {due_key("point", timer, 0, flow_id(0)): Fired({}, now, None).encode() for timer in stuck}
    owner.store.commit({**writes, others: Fired({}, 0.0, None).encode()})
    looking = Clock(owner.session, owner.store, "point")
    try:
        until(owner.store, due_prefix("point"), lambda: fired(owner, others), "the timer of another instance fires")
    finally:
        looking.close()


def fired(owner: Client, key: str) -> bool:
    entry = owner.store.get(key)
    return entry is not None and Fired.decode(entry.value).fired > 0


def test_what_is_on_probation_for_ever_hides_nothing(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who fetched 500 instances that he would keep in the year 33,000 had nobody's unkept ones released any more."""
    monkeypatch.setattr(keeping, "PAGE", 10)
    monkeypatch.setattr(keeping, "PAGES", 2)
    owner, attacker, other = users(3)
    run_get_instance_worker_thread(owner)
    writes = {keeping_key(flow_id(n)): Probation(attacker.user_id, 1e12).encode() for n in range(50)}
    last = keeping_key(flow_id(50))
    owner.store.commit({**writes, last: Probation(other.user_id, time.time() - 1).encode()})
    place = sweep(owner, time.time(), Failpoints(""))
    while place is not None:
        place = sweep(owner, time.time(), Failpoints(""), place)
    assert owner.store.get(last) is None
    assert len(owner.store.keys(KEEPING)) == 50


def test_renewing_a_certificate_again_and_again(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each time all processes of the owner checked the signatures of all ten thousand that he remembers."""
    (owner,) = users(1)
    public = bytes(nacl.bindings.crypto_scalarmult_base(b"\1" * 32))
    strangers = [Identity.generate() for _ in range(20)]
    for stranger in strangers:
        owner.keyring.learn(Certificate.issue(stranger, 1, public, {}))
    owner.keyring.reread()
    renewed = Certificate.issue(strangers[0], 2, public, {})
    owner.keyring.learn(renewed)
    checked: list[bytes] = []
    read = Certificate.read
    monkeypatch.setattr(Certificate, "read", lambda raw: checked.append(raw) or read(raw))
    owner.keyring.reread()
    assert checked == [renewed.raw]
    assert owner.keyring.peer(strangers[0].user_id) == renewed


def test_taking_back_requests_that_were_never_made(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows an owner's id could have his store grow by thousands of records a second, for 90 days."""
    monkeypatch.setattr(marks, "MOST", 5)
    owner, attacker, other = users(3)
    run_get_instance_worker_thread(owner)
    for _ in range(20):
        take_back(attacker, owner)
    assert len(owner.store.keys(RELEASED)) == 5
    take_back(other, owner)
    assert len(owner.store.keys(RELEASED)) == 6, "another one's is marked"
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo")
    get_flow_instance(attacker, "echo", owner.user_id, timeout=TIMEOUT)
    take_back(attacker, owner, [key.split(":")[1] for key in owner.store.keys(KEEPING)])
    assert len(owner.store.keys(RELEASED)) == 6


def take_back(cl: Client, owner: Client, flow_ids: list[str] | None = None) -> None:
    release = Release(
        request_id=new_message_id(),
        session=cl.session.id,
        flow_ids=flow_ids or [],
        withdrawn=None if flow_ids else new_message_id(),
    )
    queue = door_queue(owner.user_id).name
    assert cl.session.request(queue, owner.user_id, release.request_id, release).result(TIMEOUT).failure is None


def test_fetching_and_deleting_again_and_again(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker remembered every instance that had ever been sent to."""
    monkeypatch.setattr(intake, "SPARE", 0)
    monkeypatch.setattr(sequencing, "MAX_STREAMS", 0)
    owner, attacker = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
    worker = DispatchWorker(owner, "coflows_dispatch")
    try:
        for _ in range(3):
            flow = get_flow_instance(attacker, "counter", owner.user_id, timeout=TIMEOUT)
            assert flow.ask({}, TIMEOUT) == {"count": 1}
            delete_flow_instance(owner, flow.get_instance_id())
        taken_in = worker._runner._intake
        taken_in.tick()
        assert not any(taken_in._flows.values())
    finally:
        worker.stop()


def test_a_crowd_of_users_who_come_once(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """What each of them had was remembered as long as the worker lived."""
    monkeypatch.setattr(usage, "MAX_SUMS", 5)
    (owner,) = users(1)
    counted = Usage(owner.store, Quota(instances=1))
    for number in range(20):
        with counted.claimed(f"user{number}", [Amount("echo", 1)]):
            pass
    assert len(counted._sums) == 5
    counted.claim("user19", [])
    with pytest.raises(QuotaExceededError):
        counted.claim("user19", [Amount("echo", 1)])


def test_a_turn_on_what_somebody_else_has_paid_for() -> None:
    """Two holders of parts of a grant send a message with one id to the same instance at once: one of them pays."""
    message_id = new_message_id()
    mark = Entry("charged:f:m", encode({"at": 0.0, "until": 0, "by": "bob"}), 1)
    check_paid_by("bob", message_id, mark, None)
    with pytest.raises(AccessDeniedError, match="has this id"):
        check_paid_by("carol", message_id, mark, None)
    before: Any = Entry("charged:f:m", encode({"at": 0.0, "until": 0}), 1)
    check_paid_by("bob", message_id, before, None)


def test_garbage_does_not_fill_the_dead_letters(users: Users, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knew an owner's id had his broker keep whatever he sent for ever."""
    size = 20_000
    monkeypatch.setattr(refusals, "KEPT", 5.0 * (size + refusals.LETTER))
    owner, attacker = users(2)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo")
    for _ in range(20):
        attacker.broker.publish(door_queue(owner.user_id).name, secrets.token_bytes(size))
    get_flow_instance(attacker, "echo", owner.user_id, timeout=TIMEOUT)
    assert owner.session.refusals.counts()["envelope"] == 20
    assert len(list_dead_letters(owner)) == 5
