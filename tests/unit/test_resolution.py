"""Decisions about trees of instances and about who works which partition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.dispatch.membership import share
from coflows.errors import FlowCycleError, FlowInstanceError
from coflows.flows.config import SubflowSpec
from coflows.model.address import partition_of
from coflows.model.wire import MAX_DEPTH, MAX_FAN_OUT, ChainLink
from coflows.resolution import LONGEST_FETCH, derive_id, extend_chain, flow_id_of, next_deadline, patience, plan

A, B = "a" * 52, "b" * 51 + "a"


@given(workers=st.sets(st.text("abcdef", min_size=1, max_size=6), min_size=1, max_size=6), count=st.integers(1, 64))
def test_partitions_are_dealt_out_evenly_and_once(workers: set[str], count: int) -> None:
    shares = [share(range(count), workers, worker) for worker in workers]
    assert sorted(number for one in shares for number in one) == list(range(count))
    sizes = [len(one) for one in shares]
    assert max(sizes) - min(sizes) <= 1


@given(flow_id=st.uuids().map(str), partitions=st.integers(1, 64))
def test_a_partition_is_one_of_them(flow_id: str, partitions: int) -> None:
    assert 0 <= partition_of(flow_id, partitions) < partitions


def test_ids_are_the_same_again_and_differ_by_client() -> None:
    request = derive_id("0" * 32, "key")
    assert request == derive_id("0" * 32, "key") != derive_id("0" * 32, "other")
    assert flow_id_of(request, A, "echo") == flow_id_of(request, A, "echo") != flow_id_of(request, B, "echo")
    assert derive_id("0", "ab", "c") != derive_id("0", "a", "bc")


def test_the_same_endpoint_at_another_user_is_no_cycle() -> None:
    chain = extend_chain((), A, "echo")
    chain = extend_chain(chain, B, "echo")
    with pytest.raises(FlowCycleError, match="echo@aaaaaaaa -> echo@bbbbbbbb -> echo@aaaaaaaa"):
        extend_chain(chain, A, "echo")


def test_depth_and_fan_out_are_bounded() -> None:
    chain: tuple[ChainLink, ...] = ()
    for number in range(MAX_DEPTH):
        chain = extend_chain(chain, A, f"flow{number}")
    with pytest.raises(FlowInstanceError, match="deeper"):
        extend_chain(chain, A, "one_more")
    specs = {f"k{number}": SubflowSpec(A, "echo") for number in range(MAX_FAN_OUT + 1)}
    with pytest.raises(FlowInstanceError, match="subflows"):
        plan(specs, A)


def test_each_other_user_is_asked_once() -> None:
    local, own = SubflowSpec("local", "x"), SubflowSpec(A, "z")
    found = plan({"a": local, "b": SubflowSpec(B, "x"), "c": SubflowSpec(B, "y"), "d": own}, A)
    assert set(found.local) == {"a", "d"} and {user: set(items) for user, items in found.remote.items()} == {
        B: {"b", "c"}
    }


def test_the_inner_deadline_comes_first() -> None:
    assert 0 < next_deadline(110.0, 100.0) < 110.0
    assert next_deadline(90.0, 100.0) == 100.0


def test_nobody_has_another_user_wait_for_ever() -> None:
    assert patience(1_060.0, 1_000.0) == 1_060.0
    assert patience(1e300, 1_000.0) == 1_000.0 + LONGEST_FETCH
