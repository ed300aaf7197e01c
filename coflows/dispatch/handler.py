"""What is done with one message: seen before? allowed? then the flow's turn, and one commit of all its effects."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coflows.client import Client
from coflows.codec.state import encode_state
from coflows.dispatch.answers import recorded, refusal
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loaded, Loader
from coflows.dispatch.records import PushCall, TurnRecord
from coflows.dispatch.turn import Turn
from coflows.errors import AccessDeniedError, CoflowsError, ConflictError, InstanceNotFoundError, StoreError
from coflows.instances import Instance
from coflows.model.failure import Failure
from coflows.model.layout import call_key, done_key, metadata_key, reply_key
from coflows.model.messages import FlowMessage, ReplyAddress
from coflows.model.names import LOCAL
from coflows.model.wire import Call, Recall
from coflows.store.base import ABSENT

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)


class Handler:
    """Thread-safe; each job is handled by one thread at a time, and so is each instance."""

    def __init__(self, cl: Client, runner: Runner, base_paths: Sequence[Path], secrets: Mapping[str, str]) -> None:
        self.loader = Loader(cl.store, base_paths)
        self._cl = cl
        self._runner = runner
        self._secrets = secrets

    def handle(self, job: Job) -> None:
        """Work one message off, up to the call of the runner that settles it. What it raises is the runtime's own
        trouble, never the flow's: the message is to be worked off again."""
        if job.source.lease is not None:
            job.epoch = job.source.lease.take()
        if isinstance(job.payload, Recall):
            sender = job.incoming.sender
            self._runner.finish(job, (recorded(self._cl.session, self._cl.store, job.payload, sender),))
        else:
            self._call(job, job.payload)

    def _call(self, job: Job, call: Call) -> None:
        done = self._cl.store.get(done_key(call.flow_id, job.incoming.message_id))
        if done is not None:
            logger.info("Message %s was worked off before; its reply is sent again.", job.incoming.message_id)
            self._runner.finish(job, TurnRecord.decode(done.value).sent)
            return
        try:
            message, push = self._read(job, call)
            instance = self.loader.find(call.flow_id)
            self._check_access(job, instance, push)
            loaded = self.loader.load(instance)
        except StoreError:
            raise
        except CoflowsError as error:
            self._refuse(job, call, error)
            return
        turn = Turn(
            self._cl,
            instance,
            message,
            origin=push.origin if push else message.reply_to,
            secrets=self._secrets,
            private_keys=loaded.flow.flow_config.get("private_keys") or (),
            pause=lambda: self._runner.pause(job),
        )
        if call.failure is None:
            self._run(job, turn, loaded)
        else:
            turn.fail(Failure.from_dict(call.failure))
            self._commit(job, turn, loaded, failed=True)

    # -- may it? -----------------------------------------------------------------------------------------------

    def _read(self, job: Job, call: Call) -> tuple[FlowMessage, PushCall | None]:
        """The message, and for a push reply the call that it answers. AccessDeniedError when nobody asked for it."""
        incoming = job.incoming
        nothing = {"data": {}, "message_id": incoming.message_id, "created_at": 0}
        message = replace(
            FlowMessage.from_dict(call.message or nothing),
            message_id=incoming.message_id,
            sender=incoming.sender,
            reply_to=_reply_address(job, call),
            input_message_id=call.answers,
        )
        if call.answers is None:
            return message, None
        entry = self._cl.store.get(call_key(call.flow_id, call.answers))
        push = None if entry is None else PushCall.decode(entry.value)
        if push is None or push.owner != incoming.sender:
            raise AccessDeniedError("This instance awaits no such reply of you.")
        return message, push

    def _check_access(self, job: Job, instance: Instance, push: PushCall | None) -> None:
        """InstanceNotFoundError unless the sender may use it, and the message came the way that keeps its order."""
        sender, lease = job.incoming.sender, job.source.lease
        own = sender == self._cl.user_id
        mounted = instance.path.client not in (LOCAL, self._cl.user_id) and instance.path.client == sender
        right_queue = instance.address.partition == (None if lease is None else lease.partition)
        if not (right_queue and (own or mounted or push is not None or self.loader.is_singleton(instance))):
            raise InstanceNotFoundError(
                f"There is no instance {instance.path.flow_id}.",
                hint="It may have been deleted; fetch one with get_flow_instance.",
            )

    def _refuse(self, job: Job, call: Call, error: CoflowsError) -> None:
        """Answer with the error. Nothing is recorded, so the message may be sent again."""
        logger.info("Refused message %s: %s", job.incoming.message_id, error)
        try:
            reply_to = _reply_address(job, call)
        except CoflowsError as malformed:
            self._runner.reject(job, f"{malformed.code}: {malformed}")
            return
        sent = () if reply_to is None else (refusal(self._cl.session, reply_to, Failure.of(error)),)
        self._runner.finish(job, sent)

    # -- the turn ----------------------------------------------------------------------------------------------

    def _run(self, job: Job, turn: Turn, loaded: Loaded) -> None:
        loaded.flow.bind(turn)
        try:
            outcome = loaded.flow.run(turn.message)
        except BaseException as error:
            self._raised(job, turn, loaded, error)
            return
        if not inspect.isawaitable(outcome):
            self._ran(job, turn, loaded, outcome)
            return

        def ended(done: Future[Any]) -> None:
            error = done.exception()
            if error is None:
                self._ran(job, turn, loaded, done.result())
            else:
                self._raised(job, turn, loaded, error)

        self._runner.run_async(job, outcome, ended)

    def _ran(self, job: Job, turn: Turn, loaded: Loaded, outcome: object) -> None:
        try:
            if isinstance(outcome, dict):
                turn.send(loaded.flow.package_output_message(turn.message, outcome))
            elif outcome is not None:
                name = type(loaded.flow).__name__
                raise TypeError(f"{name}.run returned a {type(outcome).__name__}; return a dict (the reply) or None.")
            state = None if loaded.parallel else encode_state(loaded.flow.get_flow_state())
        except Exception as error:
            self._raised(job, turn, loaded, error)
            return
        self._commit(job, turn, loaded, state=state)

    def _raised(self, job: Job, turn: Turn, loaded: Loaded, error: BaseException) -> None:
        logger.info("%s %s raised: %r", turn.endpoint, turn.flow_id, error)
        turn.fail(Failure.of(error, raised=True))
        self._commit(job, turn, loaded, failed=True)

    def _commit(
        self, job: Job, turn: Turn, loaded: Loaded, *, state: bytes | None = None, failed: bool = False
    ) -> None:
        """New state, the record of the turn and what it sent: all or nothing, and only by who holds the lease."""
        flow_id, message, lease = turn.flow_id, turn.message, job.source.lease
        done, metadata = done_key(flow_id, message.message_id), metadata_key(flow_id)
        writes = {done: TurnRecord(tuple(turn.sent)).encode(), **turn.calls}
        for one in turn.sent:
            if one.answers is not None and one.answers != message.message_id:
                writes[reply_key(flow_id, one.answers)] = message.message_id.encode()
        if state is not None and state != loaded.state:
            writes[loaded.instance.path.key("state")] = state
        conditions = {done: ABSENT, metadata: loaded.instance.version}
        if lease is not None and job.epoch is not None:
            conditions[lease.key] = job.epoch
        answered = () if message.input_message_id is None else (call_key(flow_id, message.input_message_id),)
        try:
            self._cl.store.commit(writes, deletes=answered, conditions=conditions)
        except ConflictError as error:
            if metadata not in error.keys:
                raise
            self._deleted(job, turn)
            return
        if failed:
            self.loader.forget(flow_id)
        else:
            loaded.state = loaded.state if state is None else state
            self.loader.keep(loaded)
        self._runner.finish(job, turn.sent)

    def _deleted(self, job: Job, turn: Turn) -> None:
        self.loader.forget(turn.flow_id)
        error = InstanceNotFoundError(f"Instance {turn.flow_id} was deleted while it worked on the message.")
        origin = turn.origin
        sent = () if origin is None else (refusal(self._cl.session, origin, Failure.of(error)),)
        self._runner.finish(job, sent)


def _reply_address(job: Job, call: Call) -> ReplyAddress | None:
    """Where the reply goes: to whoever sent the message, and to nobody else."""
    if call.reply is None:
        return None
    proven = {"user_id": job.incoming.sender, "message_id": job.incoming.message_id}
    return ReplyAddress.from_dict({**call.reply, **proven})
