"""Turns whose outcome is larger than what the store holds fail; their worker goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from coflows import AtomicFlow, Client, FlowMessage
from coflows.dispatch import turn
from coflows.dispatch.records import Outgoing, TurnRecord
from coflows.errors import RemoteFlowError
from coflows.serving import get_flow_instance, serve_flow
from coflows.store.keys import MAX_VALUE_BYTES
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 60


class Hoarder(AtomicFlow):
    """Keeps as many bytes as it is told to."""

    default_config = {"name": "Hoarder", "description": "Hoards."}

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        self.flow_state["hoard"] = b"x" * input_message.data["bytes"]
        return {"kept": input_message.data["bytes"]}


def test_a_state_that_is_too_large_fails_its_turn(users: Callable[..., list[Client]]) -> None:
    owner, client = users(2)
    run_dispatch_worker_thread(owner, concurrency=1)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Hoarder", "hoarder")
    flow, other = (get_flow_instance(client, "hoarder", user_id=owner.user_id) for _ in range(2))
    with pytest.raises(RemoteFlowError, match="state has"):
        flow.ask({"bytes": MAX_VALUE_BYTES}, TIMEOUT)
    assert other.ask({"bytes": 1}, TIMEOUT) == {"kept": 1}
    assert flow.ask({"bytes": 2}, TIMEOUT) == {"kept": 2}


def test_a_commit_that_cannot_be_begun_costs_no_slot(
    users: Callable[..., list[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, client = users(2)
    run_dispatch_worker_thread(owner, concurrency=1)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, f"{__name__}.Hoarder", "hoarder")
    flow = get_flow_instance(client, "hoarder", user_id=owner.user_id)
    commit, calls = owner.store.commit_async, []

    def fail_once(*arguments: Any, **options: Any) -> None:
        calls.append(arguments)
        if len(calls) == 1:
            raise ValueError("not like this")
        commit(*arguments, **options)

    monkeypatch.setattr(owner.store, "commit_async", fail_once)
    assert flow.ask({"bytes": 1}, TIMEOUT) == {"kept": 1}


def test_the_record_of_a_turn_that_sent_as_much_as_it_may_can_be_read() -> None:
    sent = Outgoing("q" * 200, "u" * 52, "m" * 32, "a" * 32, b"", "f" * 36)
    most = TurnRecord([sent] * turn.MAX_SENT).encode()
    assert len(TurnRecord.decode(most).sent) == turn.MAX_SENT
    assert len(most) + turn.MAX_SENT_BYTES < MAX_VALUE_BYTES
