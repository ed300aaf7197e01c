"""Guests of a colony: who may submit to it does not thereby have its owner's room without end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from coflows import Client
from coflows.errors import AccessDeniedError, QuotaExceededError
from coflows.workflow import Colonies, Workflow, func_spec
from coflows.workflow.colonies.places import GraphId
from tests.waiting import until

TIMEOUT = 60
COLONY = "test"
Users = Callable[..., list[Client]]


def workflow() -> Workflow:
    made = Workflow(COLONY)
    made.functionspecs.append(func_spec("f", executortype="python"))
    return made


@pytest.fixture
def colony(users: Users, monkeypatch: pytest.MonkeyPatch) -> tuple[Client, Client]:
    """Its owner, and a guest who may submit."""
    monkeypatch.setenv("COFLOWS_QUOTA_INSTANCES", "3")
    owner, guest = users(2)
    own = Colonies(owner)
    own.add_colony(COLONY)
    own.allow(COLONY, guest.user_id, submit=True)
    return owner, guest


def test_submitting_more_workflows_than_instances_are_allowed(colony: tuple[Client, Client]) -> None:
    """Runs are the owner's instances, and counted for nobody."""
    owner, guest = colony
    theirs = Colonies(guest, owner.user_id)
    graphs = [theirs.begin(workflow()) for _ in range(3)]
    with pytest.raises(QuotaExceededError, match="3 workflows"):
        theirs.begin(workflow())
    own = Colonies(owner)
    for _ in range(4):
        own.begin(workflow())  # The owner has no quota.
    theirs.cancel(graphs[0])
    theirs.wait(graphs[0], TIMEOUT)
    assert theirs.remove(graphs[0])
    theirs.begin(workflow())


def test_removing_all_leaves_what_others_submitted(colony: tuple[Client, Client]) -> None:
    owner, guest = colony
    own, theirs = Colonies(owner), Colonies(guest, owner.user_id)
    graph = own.begin(workflow())
    own.cancel(graph)
    own.wait(graph, TIMEOUT)
    removed, kept = theirs.removeall(COLONY)
    assert removed == [] and [name for name, _ in kept] == [graph]
    for act in (theirs.remove, theirs.cancel, theirs.get_processgraph):
        with pytest.raises(AccessDeniedError):
            act(graph)


def test_a_question_keeps_nothing_but_what_it_asks(colony: tuple[Client, Client]) -> None:
    """Whoever waited for a run could have it keep a megabyte with each question."""
    owner, guest = colony
    theirs = Colonies(guest, owner.user_id)
    run = GraphId.parse(theirs.begin(workflow()))
    future = theirs._asking._start(theirs_run(owner, run), {"ask": "wait", "ballast": "x" * 500_000})
    prefix = f"records:{run.flow_id}:w:"
    until(owner.store, prefix, lambda: bool(owner.store.keys(prefix)), "it waits")
    assert all(len(entry.value) < 2_000 for entry in owner.store.scan(prefix))
    theirs.cancel(str(run))
    assert future.get_data(TIMEOUT)["state"] == "CANCELLED"


def theirs_run(owner: Client, run: GraphId):  # type: ignore[no-untyped-def]
    from coflows.workflow.colonies.places import run_address

    return run_address(owner.user_id, run.colony, run.flow_id)
