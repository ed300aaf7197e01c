"""Who does what about parked messages."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coflows.dispatch.parking import Parked, review
from coflows.lines import Place

WORKERS = ["me", "alive", "dead"]
PARKED = st.builds(
    Parked,
    worker=st.sampled_from(WORKERS),
    partition=st.none() | st.integers(0, 7),
    sender=st.just("s" * 52),
    message_id=st.text("0123456789abcdef", min_size=32, max_size=32),
    flow_id=st.sampled_from(["f", "g", "h"]),
    payload=st.binary(),
    place=st.none() | st.builds(Place, stream=st.just("0" * 16), number=st.integers(1, 2**63 - 1)),
    letter=st.none() | st.just("0" * 16),
)


@given(PARKED)
def test_a_record_is_read_as_it_was_written(parked: Parked) -> None:
    assert Parked.decode(parked.encode()) == parked


@given(st.lists(PARKED))
def test_what_a_gone_worker_left_is_adopted_and_what_others_have_is_held(parked: list[Parked]) -> None:
    found = review([(str(number), one) for number, one in enumerate(parked)], "me", ["alive", "me"])
    assert set(found.adopt) == {str(number) for number, one in enumerate(parked) if one.worker == "dead"}
    assert found.held == {one.flow_id for one in parked if one.worker != "me" and one.partition is not None}
