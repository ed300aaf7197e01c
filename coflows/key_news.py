"""What tells a user that he sealed for a key that counts no more. It is sealed with the new one, which he learns so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from coflows.broker.topology import reply_queue, session_queue
from coflows.errors import CoflowsError, KeyRetiredError
from coflows.model.calls import Call, Reply
from coflows.model.failure import Failure
from coflows.model.layout import PARKED, done_key
from coflows.model.messages import ReplyAddress, ReplyMode
from coflows.model.names import check_token
from coflows.store.base import Store

REFUSED = KeyRetiredError("The message was sealed with or for a key that was given up.", hint="Send it again.")


class News(NamedTuple):
    """A payload for a user, and the queue it goes to."""

    queue: str
    payload: Reply | Call


def news_for(sender: str, message_id: str, value: object) -> Iterator[News]:
    """What is told to who seems to have sent this message. A session sends a call again, under the same id, so that it
    is worked off once whoever wrote this one; all others get an error. Pure; never raises."""
    if not isinstance(value, Mapping):
        return
    try:
        match value.get("kind"):
            case "call":
                yield from _of_call(sender, message_id, value)
            case "recall":
                queue = session_queue(sender, check_token(value.get("session"))).name
                yield News(queue, Reply(check_token(value.get("message_id")), pending=True, unknown=True))
            case "fetch" | "release":
                queue = session_queue(sender, check_token(value.get("session"))).name
                failure = Failure.of(REFUSED).to_dict()
                yield News(queue, Reply(check_token(value.get("request_id")), failure=failure))
    except CoflowsError:
        return


def has_begun(store: Store, flow_id: str, message_id: str) -> bool:
    """Whether a message was worked off, or is being worked on for so long that it is parked."""
    if store.get(done_key(flow_id, message_id)) is not None:
        return True
    return any(key.endswith(f":{flow_id}:{message_id}") for key in store.keys(PARKED))


def _of_call(sender: str, message_id: str, value: Mapping[str, Any]) -> Iterator[News]:
    call = Call.from_dict(value)
    if call.reply is None:
        return
    reply_to = ReplyAddress.proven(call.reply, sender, message_id)
    if reply_to.mode is ReplyMode.PUSH and reply_to.flow_id is not None:
        failure = Failure.of(REFUSED).to_dict()
        yield News(reply_queue(reply_to), Call(reply_to.flow_id, answers=message_id, failure=failure))
    elif reply_to.session:
        yield News(reply_queue(reply_to), Reply(message_id, pending=True, unknown=True))
