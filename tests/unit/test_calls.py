"""Calls and replies: what another user wrote into them is checked before anybody reckons with it."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from coflows.codec.wire import decode, encode
from coflows.errors import SerializationError
from coflows.model.calls import Call, Reply
from coflows.model.messages import LATEST, FlowMessage, new_message_id

FLOW = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize("moment", [0.0, 1.7e9, math.nextafter(LATEST, 0.0)])
def test_the_time_of_a_message_is_one_of_the_calendar(moment: float) -> None:
    call = Call.from_dict(decode(encode(Call(FLOW, {}, moment).to_dict()), max_bytes=1000))
    assert datetime.fromtimestamp(call.created_at, UTC).year < 10_000


@pytest.mark.parametrize("moment", [math.nan, math.inf, -math.inf, -1.0, LATEST, 1.8e308, 1, True, "now", None])
def test_what_is_no_time_is_refused(moment: object) -> None:
    for value in (Call(FLOW, {}).to_dict(), Reply(new_message_id(), {}).to_dict()):
        with pytest.raises(SerializationError, match="created_at"):
            (Call if value["kind"] == "call" else Reply).from_dict({**value, "created_at": moment})
    with pytest.raises(SerializationError, match="seconds since the epoch"):
        FlowMessage.from_dict({**FlowMessage({}).to_dict(), "created_at": moment})
