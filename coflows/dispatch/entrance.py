"""What a message says, and whether its sender may say it here."""

from __future__ import annotations

from coflows.client import Client
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loader
from coflows.dispatch.records import PushCall
from coflows.errors import AccessDeniedError, InstanceNotFoundError
from coflows.instances import Instance
from coflows.model.calls import Call
from coflows.model.layout import call_key
from coflows.model.messages import FlowMessage, ReplyAddress
from coflows.model.names import LOCAL


def read_message(cl: Client, job: Job, call: Call) -> tuple[FlowMessage, PushCall | None]:
    """The message, and for a push reply the call that it answers. AccessDeniedError when nobody asked for it."""
    incoming = job.incoming
    source = call.src_flow_id
    if source == call.flow_id and incoming.sender != cl.user_id:
        source = None  # Only an instance itself sends in its name.
    message = FlowMessage(
        call.data or {},
        incoming.message_id,
        call.answers,
        call.created_at,
        incoming.sender,
        source,
        reply_address(job, call),
        call.failure,
    )
    if call.answers is None:
        return message, None
    entry = cl.store.get(call_key(call.flow_id, call.answers))
    push = None if entry is None else PushCall.decode(entry.value)
    if push is None or push.owner != incoming.sender:
        raise AccessDeniedError("This instance awaits no such reply of you.")
    return message, push


def check_access(cl: Client, loader: Loader, job: Job, instance: Instance, push: PushCall | None) -> None:
    """InstanceNotFoundError unless the sender may use it, and the message came the way that keeps its order."""
    sender, lease = job.incoming.sender, job.source.lease
    own = sender == cl.user_id
    mounted = instance.path.client not in (LOCAL, cl.user_id) and instance.path.client == sender
    right_queue = instance.address.partition == (None if lease is None else lease.partition)
    if not (right_queue and (mounted or own or push is not None or loader.is_shared(instance))):
        raise InstanceNotFoundError(
            f"There is no instance {instance.path.flow_id}.",
            hint="It may have been deleted; fetch one with get_flow_instance.",
        )


def reply_address(job: Job, call: Call) -> ReplyAddress | None:
    """Where the reply goes: to whoever sent the message, and to nobody else."""
    if call.reply is None:
        return None
    return ReplyAddress.proven(call.reply, job.incoming.sender, job.incoming.message_id)
