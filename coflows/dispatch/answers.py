"""Replies as they are sent: of turns, refusals, and recorded ones that are asked for again."""

from __future__ import annotations

from coflows.broker.topology import reply_queue, session_queue
from coflows.dispatch.records import Outgoing, TurnRecord
from coflows.model.calls import Call, Reply
from coflows.model.failure import Failure
from coflows.model.layout import done_key, reply_key
from coflows.model.messages import FlowMessage, ReplyAddress, ReplyMode, new_message_id
from coflows.model.wire import Recall
from coflows.session import Session
from coflows.store.base import Store


def ordered_for(reply_to: ReplyAddress) -> str | None:
    """What the order of the reply is kept within: an instance, when it goes to one."""
    return reply_to.flow_id if reply_to.mode is ReplyMode.PUSH and reply_to.partition is not None else None


def answer_to(
    reply_to: ReplyAddress, message_id: str, flow_id: str, message: FlowMessage | None, failure: Failure | None
) -> Call | Reply:
    """The reply of an instance's turn: its ``message``, or the ``failure`` that says why there is none."""
    payload: Reply | Call
    if reply_to.mode is ReplyMode.PUSH:
        assert reply_to.flow_id is not None
        payload = Call(reply_to.flow_id, answers=reply_to.message_id)
    else:
        payload = Reply(reply_to.message_id, message_id=message_id)
    if message is not None:
        payload.data, payload.created_at = message.data, message.created_at
        payload.src_flow_id = flow_id
    if failure is not None:
        payload.failure = failure.to_dict()
    return payload


def refusal(session: Session, reply_to: ReplyAddress, failure: Failure) -> Outgoing:
    """The reply that says why there is no other."""
    payload: Reply | Call
    if reply_to.mode is ReplyMode.PUSH and reply_to.flow_id is not None:
        payload = Call(reply_to.flow_id, answers=reply_to.message_id, failure=failure.to_dict())
    else:
        payload = Reply(reply_to.message_id, failure=failure.to_dict())
    data = session.encode(payload)
    queue, answers = reply_queue(reply_to), reply_to.message_id
    return Outgoing(queue, reply_to.user_id, new_message_id(), answers, data, ordered_for(reply_to))


def recorded(session: Session, store: Store, recall: Recall, sender: str, *, unknown: bool) -> Outgoing:
    """The recorded reply to a message of ``sender``'s, for the session that asks; or that there is none yet, and
    whether the message is ``unknown`` here."""
    queue = session_queue(sender, recall.session).name
    later = store.get(reply_key(recall.flow_id, recall.message_id))
    for turn in (recall.message_id, None if later is None else later.value.decode()):
        done = None if turn is None else store.get(done_key(recall.flow_id, turn))
        if done is None:
            continue
        record = TurnRecord.decode(done.value)
        answer = record.answer_to(recall.message_id, sender)
        if answer is not None:
            return Outgoing(queue, sender, new_message_id(), recall.message_id, answer.data)
        if turn == recall.message_id and record.is_of(turn, sender):
            unknown = False  # It was worked off, though its answer is still to come.
    pending = session.encode(Reply(recall.message_id, pending=True, unknown=unknown))
    return Outgoing(queue, sender, new_message_id(), recall.message_id, pending)
