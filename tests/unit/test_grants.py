"""Grants: no sequence of narrowing widens, and nothing in a token can be changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coflows.access import grants
from coflows.access.budget import CALL, INSTANCE, Spent, is_limited, spend
from coflows.access.grants import MAX_BLOCKS, Grant, Limits, check_grant, issue, narrow, read_grant
from coflows.errors import GrantError, GrantExpiredError, GrantSpentError
from coflows.identity.keys import Identity

OWNER, *HOLDERS = (Identity.from_seed(bytes([number]) * 32) for number in range(5))
amounts = st.none() | st.integers(0, 20)
limits = st.builds(Limits, amounts, amounts, amounts)
steps = st.lists(st.tuples(st.sampled_from(HOLDERS), st.none() | st.integers(0, 2000), limits), max_size=8)


def chain(first: Limits, narrowing: list[tuple[Identity, int | None, Limits]]) -> tuple[str, list[Grant], Identity]:
    """A token, handed on as often as it may be, and what each of its holders had."""
    holder = HOLDERS[0]
    token = issue(OWNER, "echo", holder.user_id, 1000, first)
    had = [read_grant(token)]
    for to, expires, less in narrowing:
        try:
            token = narrow(holder, token, to.user_id, expires, less)
        except GrantError:
            continue
        holder = to
        had.append(read_grant(token))
    return token, had, holder


def widens(new: Grant, old: Grant) -> bool:
    more = [had is not None and (has is None or has > had) for has, had in zip(new.limits, old.limits, strict=True)]
    return any(more) or new.expires > old.expires or (new.owner, new.endpoint) != (old.owner, old.endpoint)


@given(limits, steps)
@settings(deadline=None)
def test_no_sequence_of_narrowing_widens(first: Limits, narrowing: list[tuple[Identity, int | None, Limits]]) -> None:
    token, had, holder = chain(first, narrowing)
    for number, grant in enumerate(had):
        assert not any(widens(grant, before) for before in had[:number])
        assert [block.id for block in grant.blocks[:-1]] == [block.id for block in had[number - 1].blocks if number]
    assert check_grant(token, owner=OWNER.user_id, endpoint="echo", caller=holder.user_id, now=-1) == had[-1]


@given(limits, steps, st.data())
@settings(deadline=None)
def test_whoever_signs_a_wider_block_has_none(
    first: Limits, narrowing: list[tuple[Identity, int | None, Limits]], data: st.DataObject
) -> None:
    """By hand, past the checks of ``narrow``."""
    token, had, holder = chain(first, narrowing)
    parts, grant = grants._read(token)
    expires, wanted = data.draw(st.integers(0, 2000)), data.draw(limits)
    fields = grants._fields(HOLDERS[1].user_id, expires, wanted)
    made = grants._text([*parts, grants._signed(holder, bytes.fromhex(grant.id), fields)])
    try:
        assert not any(widens(read_grant(made), before) for before in had)
    except GrantError:
        more = [old is not None and (new is None or new > old) for new, old in zip(wanted, grant.limits, strict=True)]
        assert any(more) or expires > grant.expires or len(parts) == MAX_BLOCKS


@given(st.data())
@settings(deadline=None)
def test_a_bit_flip_anywhere_invalidates(data: st.DataObject) -> None:
    token, _, _ = chain(Limits(5, 2, None), [(HOLDERS[1], 900, Limits(3))] * data.draw(st.integers(0, 2)))
    raw = bytearray(token.encode())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(GrantError):
        read_grant(raw.decode("latin-1"))


@pytest.mark.parametrize("endpoint", ["echo", "echos", "echoes"])
def test_every_bit_counts(endpoint: str) -> None:
    """Those too that base64 has left over at its end."""
    token = issue(OWNER, endpoint, HOLDERS[0].user_id, 1000, Limits(calls=3))
    for bit in range(8 * len(token)):
        raw = bytearray(token.encode())
        raw[bit // 8] ^= 1 << bit % 8
        with pytest.raises(GrantError):
            read_grant(raw.decode("latin-1"))
    for place in range(len(token)):
        with pytest.raises(GrantError):
            read_grant(token[:place])


@given(st.text() | st.binary().map(lambda data: grants._text([(data, bytes(64))])))
@settings(deadline=None)
def test_anything_else_is_no_grant(token: str) -> None:
    with pytest.raises(GrantError):
        read_grant(token)


def test_blocks_cannot_be_taken_out_or_put_elsewhere() -> None:
    one = issue(OWNER, "echo", HOLDERS[0].user_id, 1000, Limits(calls=5))
    two = narrow(HOLDERS[0], one, HOLDERS[0].user_id, limits=Limits(calls=3))
    three = narrow(HOLDERS[0], two, HOLDERS[1].user_id, limits=Limits(calls=1))
    first, second, third = grants._read(three)[0]
    other = grants._read(issue(OWNER, "echo", HOLDERS[0].user_id, 1000))[0][0]
    swapped, doubled = [first, third, second], [first, second, third, third]
    for parts in ([first, third], [second, third], [other, second], swapped, doubled):
        with pytest.raises(GrantError):
            read_grant(grants._text(parts))
    assert read_grant(grants._text([first, second])).limits.calls == 3, "what one holds oneself stays as it was"


def test_who_may_hand_it_on_and_how_often() -> None:
    token = issue(OWNER, "echo", HOLDERS[0].user_id, 1000)
    with pytest.raises(GrantError, match="held by"):
        narrow(HOLDERS[1], token, HOLDERS[1].user_id)
    with pytest.raises(GrantError, match="held by"):
        narrow(OWNER, token, HOLDERS[1].user_id)
    for _ in range(MAX_BLOCKS - 1):
        token = narrow(HOLDERS[0], token, HOLDERS[0].user_id)
    with pytest.raises(GrantError, match="handed on"):
        narrow(HOLDERS[0], token, HOLDERS[0].user_id)


def test_it_ends() -> None:
    token = issue(OWNER, "echo", HOLDERS[0].user_id, 1000)
    for now in (0.0, 999.9):
        check_grant(token, owner=OWNER.user_id, endpoint="echo", caller=HOLDERS[0].user_id, now=now)
    with pytest.raises(GrantExpiredError):
        check_grant(token, owner=OWNER.user_id, endpoint="echo", caller=HOLDERS[0].user_id, now=1000.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40))
@settings(deadline=None)
def test_all_who_were_given_a_part_share_the_budget(uses: list[tuple[int, int]]) -> None:
    root = issue(OWNER, "echo", HOLDERS[0].user_id, 1000, Limits(calls=10, bytes=60))
    parts = [read_grant(narrow(HOLDERS[0], root, one.user_id, limits=Limits(calls=4))) for one in HOLDERS]
    spent: dict[str, Spent] = {}
    done = [0] * len(parts)
    size = 0
    for number, cost in uses:
        try:
            spent |= spend(parts[number], spent, Spent(calls=1, bytes=cost))
        except GrantSpentError:
            assert done[number] == 4 or sum(done) == 10 or size + cost > 60
        else:
            done[number] += 1
            size += cost
    assert max(done) <= 4 and sum(done) <= 10 and size <= 60
    assert spent.get(read_grant(root).id, Spent()) == Spent(calls=sum(done), bytes=size)


def test_what_costs_nothing_is_not_refused() -> None:
    grant = read_grant(issue(OWNER, "echo", HOLDERS[0].user_id, 1000, Limits(calls=1, instances=1)))
    spent = spend(grant, {}, CALL)
    assert spend(grant, spent, INSTANCE)[grant.id] == Spent(1, 1)
    with pytest.raises(GrantSpentError, match="calls"):
        spend(grant, spent, CALL)
    assert is_limited(grant) and not is_limited(read_grant(issue(OWNER, "echo", HOLDERS[0].user_id, 1000)))
