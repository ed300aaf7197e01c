"""Which timers are to be fired, and when to look again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.dispatch.timers import AGAIN, Fired, due_of, is_timer, place_of, review, timer_id, timer_keys
from coflows.errors import NameInvalidError
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.layout import due_key
from coflows.model.messages import new_message_id

FLOW = "12345678-1234-1234-1234-123456789012"
USER = "a" * 52


def keys(*dues: float) -> list[str]:
    return [due_key("point", timer_id(due, new_message_id()), 3, FLOW) for due in dues]


@given(st.lists(st.floats(0, 2e9), max_size=20))
def test_the_order_of_keys_is_that_of_time(dues: list[float]) -> None:
    found = sorted(keys(*dues))
    places = [place_of(key) for key in found]
    assert [place.due for place in places if place] == sorted(int(due * 1000) / 1000 for due in dues)
    assert all(place and (place.partition, place.flow_id) == (3, FLOW) for place in places)


def test_what_is_due_is_fired_and_the_next_is_waited_for() -> None:
    past, soon, late = keys(10, 20, 30)
    found = review([(past, Fired({})), (soon, Fired({})), (late, Fired({}))], 15)
    assert found == ((past,), 20)
    assert review([(soon, Fired({}))], 15) == ((), 20)
    assert review([], 15) == ((), None)


def test_what_was_fired_is_fired_again_only_after_a_while() -> None:
    (key,) = keys(10)
    assert review([(key, Fired({}, 14))], 15) == ((), 14 + AGAIN)
    assert review([(key, Fired({}, 14))], 14 + AGAIN) == ((key,), 14 + 2 * AGAIN)


def test_a_timer_of_the_parallel_queue_and_malformed_keys() -> None:
    address = InstanceAddress(USER, "endpoint", FLOW, "point", None)
    in_order, own = timer_keys(address, timer_id(5, new_message_id()))
    place = place_of(in_order)
    assert place is not None and place.partition is None and own.endswith(place.timer)
    assert review([("due:point:nonsense:0:x", Fired({}))], 15) == ((), None)
    with pytest.raises(NameInvalidError):
        due_of("nonsense")


def test_only_a_message_of_an_instance_to_itself_is_a_timers() -> None:
    assert is_timer(Call(FLOW, {}, 0.0, FLOW), USER, USER)
    assert not is_timer(Call(FLOW, {}, 0.0, FLOW), "b" * 52, USER)
    assert not is_timer(Call(FLOW, {}, 0.0), USER, USER)
    assert not is_timer(Call(FLOW, {}, 0.0, FLOW, answers=new_message_id()), USER, USER)
