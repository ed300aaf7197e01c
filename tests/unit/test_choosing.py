"""Whose flow a name means: the decision, and the grammar of the names."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.errors import (
    FlowAmbiguousError,
    FlowNotListedError,
    FlowOfflineError,
    NameInvalidError,
    OtherBrokerError,
    ProofInvalidError,
    RegistryError,
    UnknownUserError,
)
from coflows.model.flow_names import FlowName, is_looked_up
from coflows.registry.choosing import Candidate, choose, unreachable

ALICE = Candidate("a" * 52, "reverse", "Acme", "http://alice:3366", "amqp://broker/")
BOB = Candidate("q" * 52, "reverse", "Beta & Co", "http://bob:3366", None)
REVERSE = FlowName("reverse")
CANDIDATES = st.builds(
    Candidate,
    st.sampled_from(["u1", "u2", "u3"]),
    st.sampled_from(["reverse", "Reverse", "other"]),
    st.sampled_from(["", "Acme", "acme"]),
    online=st.booleans(),
)


def test_the_only_one() -> None:
    assert choose(REVERSE, [ALICE]) == ALICE
    assert choose(FlowName("reverse", "Acme"), [BOB, ALICE]) == ALICE


def test_one_user_at_several_nodes_is_one() -> None:
    away = replace(ALICE, node="http://old:1", online=False)
    assert choose(REVERSE, [away, ALICE, replace(ALICE, node="http://third:1")]) == ALICE


def test_an_ambiguous_name_lists_the_candidates() -> None:
    with pytest.raises(FlowAmbiguousError) as raised:
        choose(REVERSE, [BOB, ALICE])
    for one in (ALICE, BOB):
        assert one.user_id in raised.value.message and one.organization in raised.value.message
    assert "coflows://Beta%20%26%20Co/reverse" in raised.value.hint


def test_who_is_away_is_not_replaced_by_somebody_else() -> None:
    with pytest.raises(FlowAmbiguousError):
        choose(REVERSE, [replace(ALICE, online=False), BOB])
    with pytest.raises(FlowOfflineError) as raised:
        choose(REVERSE, [replace(ALICE, online=False)])
    assert ALICE.user_id in raised.value.hint


def test_nothing_of_that_name() -> None:
    with pytest.raises(FlowNotListedError, match=r"coflows://acme/reverse.*Like it there is: reverse of Acme"):
        choose(FlowName("reverse", "acme"), [ALICE])
    with pytest.raises(FlowNotListedError, match="Not answered by: http://x is away"):
        choose(REVERSE, [], silent=["http://x is away"])
    with pytest.raises(ProofInvalidError, match="forged"):
        choose(REVERSE, [], doubts=["forged"])


@given(st.lists(CANDIDATES, max_size=6), st.sampled_from([None, "Acme"]))
def test_what_is_chosen_is_the_only_user(candidates: list[Candidate], organization: str | None) -> None:
    users = {
        one.user_id
        for one in candidates
        if one.endpoint == "reverse" and (organization is None or one.organization == organization)
    }
    try:
        chosen = choose(FlowName("reverse", organization), candidates)
    except FlowOfflineError:
        assert len(users) == 1
    except RegistryError:
        assert len(users) != 1
    else:
        assert {chosen.user_id} == users and chosen.online and chosen in candidates


@pytest.mark.parametrize(
    ("said", "own", "kind"),
    [
        ("amqp://broker/", "amqp://alice@BROKER:5672/", UnknownUserError),
        (None, "amqp://broker/", UnknownUserError),
        ("amqp://broker/", "amqp://broker:5673/", OtherBrokerError),
        ("amqp://broker/", "amqp://broker/vhost", OtherBrokerError),
        ("amqp://broker/", "embedded:///home/x", OtherBrokerError),
        ("embedded:///home/y", "embedded:///home/x", OtherBrokerError),
    ],
)
def test_another_broker(said: str | None, own: str, kind: type[UnknownUserError]) -> None:
    error = unreachable(replace(ALICE, broker=said), own)
    assert type(error) is kind and own in error.message and error.hint
    assert said is None or kind is UnknownUserError or said in error.message


@given(st.text(st.characters(categories=("L", "N", "P", "S")), min_size=1, max_size=200))
def test_a_name_reads_back(organization: str) -> None:
    name = FlowName("reverse", organization)
    assert FlowName.parse(str(name)) == name


def test_names() -> None:
    assert FlowName.parse("reverse") == REVERSE
    assert FlowName.parse("coflows://Plan.Net Journey/reverse") == FlowName("reverse", "Plan.Net Journey")
    assert is_looked_up("registry", "x") and is_looked_up("local", "coflows://x/y") and not is_looked_up("local", "x")
    for wrong in ("", *("coflows://" + rest for rest in ("", "x", "/x", "x/y/z", "%ff/x", "%0a/x"))):
        with pytest.raises(NameInvalidError):
            FlowName.parse(wrong)
