"""The chain of a call: what is read back, what is refused, and that a budget is never more than it was."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.access.chain import check_chain, check_cycle, extended, limited, share
from coflows.codec.wire import decode, encode
from coflows.errors import (
    CallBudgetError,
    CallChainError,
    CallCycleError,
    CallDepthError,
    CallExpiredError,
    CoflowsError,
    SerializationError,
)
from coflows.model.chain import MAX_HOPS, CallChain, Hop
from coflows.model.names import encode_user_id
from coflows.resolution import flow_id_of

USERS = [encode_user_id(bytes([number]) * 32) for number in range(4)]
users = st.sampled_from(USERS)
flow_ids = st.integers(0, 5).map(lambda number: flow_id_of(str(number), "", ""))
hops = st.builds(Hop, users, st.sampled_from(["echo", "a.b"]), flow_ids)
chains = st.builds(
    CallChain,
    users,
    st.lists(hops, max_size=MAX_HOPS).map(tuple),
    st.none() | st.floats(0, 1e10),
    st.none() | st.integers(0, 1000),
)


@given(chains)
def test_what_is_written_is_read_back(chain: CallChain) -> None:
    data = encode(chain.to_list())
    assert CallChain.from_list(decode(data, max_bytes=8192)) == chain
    users = {chain.root, *(hop.user_id for hop in chain.hops)}
    assert len(data) < 32 + 56 * len(users) + 30 * len(chain.hops)


@given(st.recursive(st.none() | st.integers() | st.binary() | st.text(), lambda inner: st.lists(inner, max_size=5)))
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(SerializationError):
        CallChain.from_list(value)


@given(chains, st.data())
def test_one_changed_part_is_another_chain_or_none(chain: CallChain, data: st.DataObject) -> None:
    raw = bytearray(encode(chain.to_list()))
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with suppress(SerializationError):
        assert CallChain.from_list(decode(bytes(raw), max_bytes=8192)) != chain


@given(chains, users, hops)
def test_a_turn_adds_itself_and_nothing_else(chain: CallChain, caller: str, here: Hop) -> None:
    if len(chain.hops) == MAX_HOPS:
        with pytest.raises(CallDepthError, match=here.flow_endpoint):
            extended(chain, caller, here)
        return
    longer = extended(chain, caller, here)
    assert longer.hops == (*chain.hops, here) and longer.root == chain.root
    assert extended(None, caller, here) == CallChain(caller, (here,))
    check_chain(longer, sender=here.user_id, source=here.flow_id, now=0)
    with pytest.raises(CallCycleError, match=here.flow_endpoint):
        check_cycle(longer, here.user_id, here.flow_id)


@given(chains, users)
def test_only_its_last_link_can_vouch_for_it(chain: CallChain, sender: str) -> None:
    vouched = chain.hops[-1].user_id if chain.hops else chain.root
    try:
        check_chain(chain, sender=sender, source=None, now=0)
    except CallChainError:
        assert sender != vouched
    else:
        assert sender == vouched


def test_the_depth() -> None:
    """With all links that there may be it is still read; nobody adds another one."""
    here = Hop(USERS[1], "echo", flow_id_of("1", "", ""))
    full = CallChain(USERS[0], (here,) * MAX_HOPS)
    assert extended(CallChain(USERS[0], (here,) * (MAX_HOPS - 1)), USERS[1], here) == full
    assert CallChain.from_list(decode(encode(full.to_list()), max_bytes=8192)) == full
    with pytest.raises(CallDepthError, match=r"longer than 64.* \.\.\. "):
        extended(full, USERS[1], here)
    with pytest.raises(SerializationError, match="longer"):
        CallChain.from_list(decode(encode(CallChain(USERS[0], (here,) * 65).to_list()), max_bytes=8192))


def test_the_deadline() -> None:
    chain = CallChain(USERS[0], deadline=10.0)
    check_chain(chain, sender=USERS[0], source=None, now=10.0)
    with pytest.raises(CallExpiredError, match="deadline"):
        check_chain(chain, sender=USERS[0], source=None, now=10.5)


@given(chains, st.none() | st.floats(0, 1e10), st.none() | st.integers(0, 1000))
def test_a_sender_can_only_take_away(chain: CallChain, deadline: float | None, budget: int | None) -> None:
    less = limited(chain, deadline, budget)
    assert (less.root, less.hops) == (chain.root, chain.hops)
    for had, has, asked in ((chain.deadline, less.deadline, deadline), (chain.budget, less.budget, budget)):
        assert has == min((one for one in (had, asked) if one is not None), default=None)


@given(st.integers(0, 200), st.lists(st.integers(0, 3), max_size=300))
def test_all_calls_together_keep_to_the_budget(budget: int, order: list[int]) -> None:
    """Whatever calls what in whichever order."""
    chain = CallChain(USERS[0])
    turns = [budget]
    calls = 0
    for number in order:
        which = number % len(turns)
        try:
            given, kept = share(turns[which], chain)
        except CallBudgetError:
            assert turns[which] == 0
            continue
        assert given is not None and kept is not None
        turns[which] = kept
        turns.append(given)
        calls += 1
        assert calls + sum(turns) == budget
    assert share(None, chain) == (None, None)


def test_errors_show_the_circle() -> None:
    one, two = (Hop(USERS[n], f"flow{n}", flow_id_of(str(n), "", "")) for n in (1, 2))
    chain = CallChain(USERS[0], (one, two))
    with pytest.raises(CoflowsError) as caught:
        check_cycle(chain, one.user_id, one.flow_id)
    assert caught.value.message.count("flow1@") == 2 and "flow2@" in caught.value.message
    check_cycle(chain, two.user_id, one.flow_id)
