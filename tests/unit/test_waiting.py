"""Replies that do not come are asked for, less and less often, and soon again when their message is sent again."""

from __future__ import annotations

import time

from coflows.model.calls import Reply
from coflows.waiting import FIRST_LOOK, PendingReply, Waiting


def test_a_message_that_is_sent_again_is_asked_for_soon() -> None:
    sent: list[PendingReply] = []
    waiting = Waiting(lambda pending: None, sent.append)
    try:
        pending = waiting.expect("m" * 32, "owner")
        pending.data = b"message"
        pending.delay, pending.due = 160.0, time.monotonic() + 160.0
        waiting.arrived("owner", Reply(answers=pending.message_id, pending=True, unknown=True))
        assert sent == [pending]
        assert pending.delay == FIRST_LOOK and pending.due <= time.monotonic() + FIRST_LOOK
    finally:
        waiting.close()
