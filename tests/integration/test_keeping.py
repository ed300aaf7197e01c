"""A tree whose fetcher had written it down and died before he could tell its owners: they hear of it in time."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from coflows import Client, mounting
from coflows.failpoints import Failpoints
from coflows.instances import find_instance
from coflows.keeping import sweep
from coflows.model.layout import KEEPING
from coflows.serving import get_flow_instance, serve_flow
from tests.waiting import until
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

SWEEP = 5
TIMEOUT = 30


@pytest.mark.parametrize("timeout", [8.0, 60.0])
def test_the_workers_of_all_look_again_and_again(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch, timeout: float
) -> None:
    """Over three times the fetch's timeout, passed as if by a clock: his own worker tells before any owner gives up."""
    alice, bob, carol = users(3)
    for cl in (alice, bob, carol):
        run_dispatch_worker_thread(cl)
        run_get_instance_worker_thread(cl)
    serve_flow(alice, "tests.chaos.flows.Witness", "witness")
    for cl in (bob, carol):
        serve_flow(cl, "tests.chaos.flows.Relay", "relay")
    at_alice = {"subflows_config": {"next": {"user_id": alice.user_id, "flow_endpoint": "witness"}}}
    at_bob = {"subflows_config": {"next": {"user_id": bob.user_id, "flow_endpoint": "relay", **at_alice}}}
    monkeypatch.setattr(mounting, "tell_kept", lambda *_: None)
    flow = get_flow_instance(carol, "relay", config_overrides=at_bob, timeout=timeout)
    fetched = time.time()
    assert all(cl.store.keys(KEEPING) for cl in (alice, bob, carol)), "nobody has told anybody"
    for seconds in range(0, int(3 * timeout), SWEEP):
        for cl in (bob, alice, carol):
            sweep(cl, fetched + seconds, Failpoints(""))
        if seconds > timeout:
            for cl in (carol, bob, alice):
                until(cl.store, KEEPING, lambda: not cl.store.keys(KEEPING), "a record")  # noqa: B023
    assert find_instance(carol.store, flow.get_instance_id()) is not None
    assert flow.ask({"number": 1}, TIMEOUT) == {"number": 1, "position": 1}
