"""Attacks on the chain that a call carries: forged, stripped, circular, endless, outlived."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from coflows import Client
from coflows.broker.topology import door_queue
from coflows.errors import CallChainError, CoflowsError, FlowCycleError, RemoteFlowError
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.chain import MAX_HOPS, CallChain, Hop
from coflows.model.failure import Failure
from coflows.model.messages import new_message_id
from coflows.model.wire import ChainLink, Fetch, FetchItem
from coflows.proxy import FlowProxy
from coflows.resolution import flow_id_of
from coflows.serving import get_flow_instance
from tests.security import flows
from tests.security.world import TIMEOUT, World, send_call

USER = "a" * 52


@pytest.fixture(scope="module")
def relays(world: World) -> tuple[FlowProxy, FlowProxy]:
    """A relay of alice's and one of bob's, which answer everybody, as singletons do."""
    ours, theirs = (world.serve("Relay", cl, singleton=True) for cl in (world.alice, world.bob))
    return world.fetch(world.carol, ours), world.fetch(world.carol, theirs, world.bob)


@pytest.fixture(autouse=True)
def nothing_told() -> Iterator[None]:
    flows.OUTCOMES.clear()
    yield


def path(*relays: FlowProxy) -> list[dict[str, Any]]:
    return [one.address.to_dict() for one in relays]


def told(failed: bool = False) -> dict[str, Any]:
    """The first outcome that a relay tells of; of those that failed, if asked."""

    def found() -> list[dict[str, Any]]:
        return [one for one in flows.OUTCOMES if one["failure"] or not failed]

    with flows.TOLD:
        assert flows.TOLD.wait_for(found, TIMEOUT)
        return found()[0]


def link(cl: Client, number: int = 0) -> Hop:
    return Hop(cl.user_id, "somewhere", flow_id_of(str(number), cl.user_id, ""))


def refusal(cl: Client, to: InstanceAddress, chain: Any, code: str, **more: Any) -> str:
    value = chain.to_list() if isinstance(chain, CallChain) else chain
    reply = send_call(cl, to, Call(to.flow_id, {}, chain=value, **more))
    assert reply.failure is not None, reply
    assert reply.failure["code"] == code, reply.failure
    return str(reply.failure["text"])


# -- who began it ----------------------------------------------------------------------------------------------


def test_a_forged_root(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    """Nobody can say that what he sends himself was begun by another one; nor that he passes it on for a third."""
    to, mallory = relays[0].address, world.mallory
    refusal(mallory, to, CallChain(world.alice.user_id), "call_chain")
    refusal(mallory, to, CallChain(world.alice.user_id, (link(world.bob),)), "call_chain")
    refusal(mallory, to, CallChain(mallory.user_id, (link(mallory), link(world.alice))), "call_chain")


def test_a_forged_root_opens_no_door(world: World) -> None:
    """A chain that says that who may come in has begun it lets in nobody who may not."""
    endpoint = world.serve("Tally", singleton=True, access=[world.bob.user_id])
    flow = world.fetch(world.bob, endpoint)
    chain = CallChain(world.bob.user_id, (link(world.bob), link(world.mallory)))
    refusal(world.mallory, flow.address, chain, "instance_not_found")


def test_a_chain_in_the_name_of_another_instance(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    here = link(world.mallory)
    chain = CallChain(world.carol.user_id, (here,))
    refusal(world.mallory, relays[0].address, chain, "call_chain", src_flow_id=link(world.mallory, 2).flow_id)
    reply = send_call(world.mallory, relays[0].address, Call(relays[0].address.flow_id, {}, chain=chain.to_list()))
    assert reply.data["root"] == world.carol.user_id, "a root is what the sender vouches for, and he is known"


def test_a_stripped_chain(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    """Who passes a call on without its chain is its root himself: what it costs is on him."""
    ours, theirs = relays
    asked = world.carol.proxy(theirs.address).ask({"path": path(ours)}, TIMEOUT)
    assert asked["root"] == world.carol.user_id
    stripped = send_call(world.bob, ours.address, Call(ours.address.flow_id, {}, src_flow_id=theirs.address.flow_id))
    assert stripped.data["root"] == world.bob.user_id


def test_a_root_that_is_lost_on_the_way_back(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    """A turn that goes on with a reply goes on for who began it, and not for who replied."""
    ours, theirs = relays
    world.carol.proxy(ours.address).ask({"path": path(theirs), "how": "push"}, TIMEOUT)
    outcome = told()
    assert outcome["failure"] == {} and outcome["root"] == outcome["began"] == world.carol.user_id


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [1, None, None, []],
        [[], None, None, []],
        [[b"x" * 32], None, None, []],
        [["local"], None, None, []],
        [[USER], None, None, [[0, "a:b", b"x" * 16]]],
        [[USER], None, None, [[0, "a", b"x" * 15]]],
        [[USER], None, None, [[0, "a"]]],
        [[USER], None, None, [[1, "a", b"x" * 16]]],
        [[USER], None, None, [[-1, "a", b"x" * 16]]],
        [[USER], None, None, [[True, "a", b"x" * 16]]],
        [[USER] * 3, None, None, [[0, "a", b"x" * 16]]],
        [[USER], float("inf"), None, []],
        [[USER], None, -1, []],
        [[USER], None, True, []],
        [[USER], None, None, [[0, "a", b"x" * 16]] * (MAX_HOPS + 1)],
        [[USER], None, None, {}],
        [[USER], None, None, [], 5],
    ],
)
def test_garbage_for_a_chain(world: World, relays: tuple[FlowProxy, FlowProxy], chain: list[Any]) -> None:
    refusal(world.mallory, relays[0].address, chain, "serialization")
    assert world.carol.proxy(relays[0].address).ask({}, TIMEOUT)["root"] == world.carol.user_id


def test_a_reply_with_a_chain_of_its_own(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    """Bob, asked by alice's relay, answers by hand and would have her turn go on in a chain that he makes up."""
    ours, theirs = relays
    asked: list[Call] = []
    with pytest.MonkeyPatch.context() as patch:
        send = flows.Relay.run

        def run(self: flows.Relay, message: Any) -> Any:
            if message.data.get("quiet") and not message.data["path"]:
                asked.append(message)
                return None
            return send(self, message)

        patch.setattr(flows.Relay, "run", run)
        data = {"path": path(theirs), "how": "push", "quiet": True}
        world.carol.proxy(ours.address).ask(data, TIMEOUT)
        deadline = time.monotonic() + TIMEOUT
        while not asked:
            assert time.monotonic() < deadline
    message_id = asked[0].message_id  # type: ignore[attr-defined]
    forged = Call(ours.address.flow_id, {}, answers=message_id, chain=CallChain(world.bob.user_id).to_list())
    reply = send_call(world.bob, ours.address, forged)
    assert reply.failure["code"] == "serialization"


# -- circles ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [1, 2])
def test_a_circle_by_asking(world: World, relays: tuple[FlowProxy, FlowProxy], turns: int) -> None:
    """It would wait for itself for ever: refused at once, and the circle is shown."""
    ours, theirs = relays
    with pytest.raises(RemoteFlowError, match="go in a circle") as caught:
        world.carol.proxy(ours.address).ask({"path": path(*[theirs, ours] * turns)}, TIMEOUT)
    assert caught.value.error_text.count(f"{ours.flow_endpoint}@") == 2
    assert f"{theirs.flow_endpoint}@" in caught.value.error_text
    assert world.carol.proxy(ours.address).ask({}, TIMEOUT)["root"] == world.carol.user_id


@pytest.mark.parametrize("how", ["push", "timer"])
def test_a_circle_by_messages_and_timers(world: World, relays: tuple[FlowProxy, FlowProxy], how: str) -> None:
    """Where nobody waits, so that it would go round for ever."""
    ours, theirs = relays
    rounds = path(*[theirs, ours] * 20)
    world.carol.proxy(ours.address).ask({"path": rounds, "how": how}, TIMEOUT)
    failure = told(failed=True)["failure"]
    assert failure["code"] == "call_cycle" and failure["text"].count(f"{ours.flow_endpoint}@") == 2


def test_a_circle_that_the_sender_does_not_look_for(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    """The one who is asked again looks himself."""
    to = relays[0].address
    own = Hop(to.user_id, to.flow_endpoint, to.flow_id)
    chain = CallChain(world.carol.user_id, (own, link(world.mallory)))
    text = refusal(world.mallory, to, chain, "call_cycle")
    assert text.count(f"{to.flow_endpoint}@") == 2 and "somewhere@" in text


def test_a_circle_by_fetching(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    spec: dict[str, Any] = {"user_id": world.bob.user_id, "flow_endpoint": ""}
    monkeypatch.setitem(flows.Deputy.default_config["subflows_config"], "next", spec)
    spec["flow_endpoint"] = "a-circle"
    from coflows.serving import serve_flow

    serve_flow(world.bob, flows.Deputy, "a-circle")
    with pytest.raises(FlowCycleError, match=r"a-circle@\w+ -> a-circle@"):
        world.fetch(world.mallory, "a-circle", world.bob)
    with pytest.raises(FlowCycleError, match="contains itself"):
        get_flow_instance(world.bob, "a-circle")


@pytest.mark.parametrize("forged", ["chain", "root"])
def test_a_forged_path_of_a_fetch(world: World, forged: str) -> None:
    endpoint, mallory = world.serve("Tally"), world.mallory
    links = [ChainLink(user_id=world.bob.user_id, flow_endpoint="somewhere")] if forged == "chain" else []
    fetch = Fetch(
        request_id=new_message_id(),
        session=mallory.session.id,
        items=[FetchItem(key="root", flow_endpoint=endpoint)],
        chain=links,
        deadline=time.time() + TIMEOUT,
        root=world.bob.user_id if forged == "root" else None,
    )
    queue, owner = door_queue(world.alice.user_id).name, world.alice.user_id
    answer = mallory.session.request(queue, owner, fetch.request_id, fetch).result(TIMEOUT)
    assert answer.failure is not None
    assert type(Failure.from_dict(answer.failure).to_error("")) is CallChainError
    assert world.alice.read_keys(f"flows:{endpoint}:mounts:") == []


# -- depth, deadline, budget -----------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["ask", "push", "timer"])
def test_deeper_than_allowed(world: World, relays: tuple[FlowProxy, FlowProxy], how: str) -> None:
    ours, theirs = relays
    links = tuple(link(world.mallory, number) for number in range(MAX_HOPS))
    call = Call(
        ours.address.flow_id, {"path": path(theirs), "how": how}, chain=CallChain(world.carol.user_id, links).to_list()
    )
    reply = send_call(world.mallory, ours.address, call)
    if how == "timer":
        assert reply.data == {}
        assert told()["failure"]["code"] == "call_depth"
    else:
        assert (reply.failure["code"], reply.failure["raised"]) == ("call_depth", True)
        assert f"{ours.flow_endpoint}@" in reply.failure["text"] and "longer than 64" in reply.failure["text"]


def test_later_than_the_deadline(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    ours, theirs = relays
    refusal(world.carol, ours.address, CallChain(world.carol.user_id, deadline=time.time() - 1), "call_expired")
    until = time.time() + TIMEOUT
    flow = world.carol.proxy(ours.address)
    message = flow.package_input_message({"path": path(theirs), "deadline": until + 1000})
    message.deadline = until
    assert flow.get_reply_future(message).get_data(TIMEOUT)["deadline"] == until, "no hop can put it off"


def test_more_calls_than_the_budget(world: World, relays: tuple[FlowProxy, FlowProxy]) -> None:
    ours, theirs = relays
    flow = world.carol.proxy(ours.address)

    def ask(calls: int, **data: Any) -> dict[str, Any]:
        message = flow.package_input_message({"path": path(theirs), **data})
        message.budget = calls
        return flow.get_reply_future(message).get_data(TIMEOUT)

    assert ask(11, budget=1000)["budget"] == 5, "half of what is left goes with each call"
    assert ask(3, times=2)["budget"] == 0
    for budget, times in ((0, 1), (3, 4)):
        with pytest.raises(RemoteFlowError, match="budget of further calls") as caught:
            ask(budget, times=times)
        assert caught.value.remote_code == "call_budget"


def test_every_chain_error_is_typed() -> None:
    for code in ("call_chain", "call_cycle", "call_depth", "call_budget", "call_expired", "grant_spent"):
        error = Failure(code, "", "why").to_error("")
        assert error.code == code and type(error) is not CoflowsError
