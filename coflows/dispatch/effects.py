"""What one turn adds to its batch's commit: records to write and to delete, and what must hold for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import NamedTuple

from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loaded
from coflows.dispatch.records import TurnRecord
from coflows.dispatch.timers import timer_keys
from coflows.dispatch.turn import Turn
from coflows.identity.sealing import LONGEST
from coflows.model.layout import attempts_key, call_key, done_key, metadata_key, record_key, reply_key
from coflows.store.base import ABSENT


class Effects(NamedTuple):
    """Of one turn; more may be put in before it is added."""

    writes: dict[str, bytes]
    deletes: list[str]
    conditions: dict[str, int]


def effects_of(turn: Turn, job: Job, loaded: Loaded, records: Mapping[str, bytes | None] | None) -> Effects:
    """The record of the turn with all that it sent, its timers and its instance's ``records`` (None: to be deleted), on
    condition that nobody else has worked the message off, and that the instance is there. What a parked message leaves
    stays: should what the turn sent not get out, whoever adopts the message sends it again."""
    flow_id, message = turn.flow_id, turn.message
    done = done_key(flow_id, message.message_id)
    writes = {**turn.calls, **turn.timers}
    if not turn.untracked or job.incoming.place is not None or any(one.answers is None for one in turn.sent):
        until = job.incoming.until or int(time.time() + LONGEST)  # One adopted or replayed does not tell.
        writes[done] = TurnRecord.of(message.message_id, job.incoming.sender, turn.sent, until).encode()
    for one in turn.sent:
        if one.answers is not None and one.answers != message.message_id:
            writes[reply_key(flow_id, one.answers)] = message.message_id.encode()
    conditions = {done: ABSENT, metadata_key(flow_id): loaded.instance.version}
    deletes = list(turn.deletes)
    if message.input_message_id is not None:
        deletes.append(call_key(flow_id, message.input_message_id))
    for name, value in (records or {}).items():
        if value is None:
            deletes.append(record_key(flow_id, name))
        else:
            writes[record_key(flow_id, name)] = value
    if job.timer is not None:
        conditions[job.timer.key] = job.timer.version
        deletes += timer_keys(turn.address, message.message_id)
    if job.charged is not None and done in writes:
        deletes.append(job.charged)
    if job.again:
        deletes.append(attempts_key(flow_id, message.message_id))
    return Effects(writes, deletes, conditions)
