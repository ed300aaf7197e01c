"""What a message says, and whether its sender may say it here."""

from __future__ import annotations

import time
from typing import NamedTuple

from coflows.access.chain import check_chain, check_cycle
from coflows.access.grants import Grant
from coflows.client import Client
from coflows.dispatch.gate import Gate
from coflows.dispatch.job import Job
from coflows.dispatch.records import PushCall
from coflows.dispatch.timers import is_timer
from coflows.errors import AccessDeniedError, SerializationError
from coflows.instances import Instance, no_such_instance
from coflows.model.calls import Call
from coflows.model.chain import CallChain
from coflows.model.layout import call_key
from coflows.model.messages import FlowMessage, ReplyAddress


class Read(NamedTuple):
    """A message as its flow sees it; for a push reply the call that it answers; and the chain that it came by, or that
    call did: None when its sender is its root."""

    message: FlowMessage
    push: PushCall | None
    chain: CallChain | None

    @property
    def root(self) -> str | None:
        """Who began the chain."""
        return self.message.root


def read_message(cl: Client, job: Job, call: Call) -> Read:
    """Raises AccessDeniedError for a reply that nobody asked for, SerializationError or CallChainError for a chain that
    its sender cannot vouch for, CallExpiredError."""
    incoming = job.incoming
    source = call.src_flow_id
    if source == call.flow_id and incoming.sender != cl.user_id:
        source = None  # Only an instance itself sends in its name.
    push = None
    if call.answers is not None:
        entry = cl.store.get(call_key(call.flow_id, call.answers))
        push = None if entry is None else PushCall.decode(entry.value)
        if push is None or push.owner != incoming.sender:
            raise AccessDeniedError("This instance awaits no such reply of you.")
    chain = _chain(cl, job, call, push)
    message = FlowMessage(
        call.data or {},
        incoming.message_id,
        call.answers,
        call.created_at,
        incoming.sender,
        source,
        reply_address(job, call),
        call.failure,
        incoming.sender if chain is None else chain.root,
    )
    if chain is not None:
        message.deadline, message.budget = chain.deadline, chain.budget
    return Read(message, push, chain)


def _chain(cl: Client, job: Job, call: Call, push: PushCall | None) -> CallChain | None:
    value = call.chain
    if push is not None:
        if value is not None:
            raise SerializationError("A reply carries no chain of calls: it goes on with that of the question.")
        value = push.chain
    if value is None:
        return None
    chain = CallChain.from_list(value)
    if push is None and not is_timer(call, job.incoming.sender, cl.user_id):
        check_chain(chain, sender=job.incoming.sender, source=call.src_flow_id, now=time.time())
        check_cycle(chain, cl.user_id, call.flow_id)
    return chain


def check_access(cl: Client, gate: Gate, job: Job, instance: Instance, read: Read, dispatch_point: str) -> Grant | None:
    """InstanceNotFoundError unless the sender may use it, and the message came the way that keeps its order (beside
    those of its own queue it would run at the same time as they); see ``Gate.check``. Gives the grant that is to pay
    for it."""
    sender, lease, address = job.incoming.sender, job.source.lease, instance.address
    partition = None if lease is None else lease.partition
    if address.partition != partition or address.dispatch_point != dispatch_point:
        raise no_such_instance(instance.path.flow_id)
    if sender == cl.user_id or read.push is not None:
        return None
    return gate.check(instance, sender, read.root)


def reply_address(job: Job, call: Call) -> ReplyAddress | None:
    """Where the reply goes: to whoever sent the message, and to nobody else."""
    if call.reply is None:
        return None
    return ReplyAddress.proven(call.reply, job.incoming.sender, job.incoming.message_id)
