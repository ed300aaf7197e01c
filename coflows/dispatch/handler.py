"""What is done with one message: seen before? allowed? Then it is its flow's turn."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from coflows.client import Client
from coflows.dispatch.answers import refusal
from coflows.dispatch.course import Course
from coflows.dispatch.entrance import check_access, read_message, reply_address
from coflows.dispatch.gate import Gate
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loader
from coflows.dispatch.parking import Claim
from coflows.dispatch.records import Outgoing, TurnRecord
from coflows.dispatch.timers import is_timer, timer_keys
from coflows.dispatch.turn import Turn
from coflows.dispatch.turn_runner import TurnRunner
from coflows.dispatch.work import Work
from coflows.endpoints import read as read_entry
from coflows.errors import (
    AccessDeniedError,
    CallCancelledError,
    CoflowsError,
    InputInvalidError,
    OutOfOrderError,
    StoreError,
)
from coflows.flows.models import check_input
from coflows.instances import Instance, no_such_instance
from coflows.model.calls import Call
from coflows.model.failure import Failure
from coflows.model.layout import done_key, metadata_key, order_key
from coflows.redaction import Redactor

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)


class Handler:
    """Thread-safe; each batch is handled by one thread at a time, and so is each instance."""

    def __init__(
        self,
        cl: Client,
        runner: Runner,
        loader: Loader,
        turns: TurnRunner,
        secrets: Mapping[str, str],
        redactor: Redactor,
        resources: Mapping[str, Any],
        dispatch_point: str,
    ) -> None:
        self.gate = Gate(cl, loader)
        self._cl = cl
        self._runner = runner
        self._loader = loader
        self._turns = turns
        self._secrets = secrets
        self._redactor = redactor
        self._resources = resources
        self._point = dispatch_point

    def handle(self, work: Work, job: Job) -> bool:
        """Work one message off; False when the batch is not to go on with the next one. What it raises is the runtime's
        own trouble, never the flow's: the message is to be worked off again."""
        if job.parked is None and job.source.gives_back(job):
            self._runner.settlement.put_off(job)
            return True
        work.since, work.turn, work.job = time.monotonic(), None, job
        if not job.fresh:
            self._refresh(job)
        record = None if job.done is None else TurnRecord.decode(job.done.value)
        if record is not None and record.is_of(job.incoming.message_id, job.incoming.sender):
            logger.info("Message %s was worked off before; its reply is sent again.", job.incoming.message_id)
            self._runner.turnstile.charge(job, sum(len(one.data) for one in record.sent))
            self._over(work, job, record.sent, accepted=True)
            return True
        call, flow_id = job.payload, job.payload.flow_id
        try:
            read = read_message(self._cl, job, call)
            message, push = read.message, read.push
            failure = None if call.failure is None else Failure.from_dict(call.failure)
            if job.stranger:
                raise no_such_instance(flow_id)
            instance = self._loader.find(flow_id, job.metadata)
            grant = check_access(self._cl, self.gate, job, instance, read, self._point)
            if record is not None:
                raise AccessDeniedError("Somebody else's message has this id.", hint="Send it under another one.")
            if is_timer(call, job.incoming.sender, self._cl.user_id) and not self._is_set(work, job, instance):
                logger.info("Timer %s was cancelled, or worked off before.", job.incoming.message_id)
                self._runner.settlement.finish([(job, ())])
                return True
            if job.late:
                raise OutOfOrderError(
                    "The message came after later ones had been worked off.", hint="Send it again, as a new message."
                )
            loaded = work.loaded.get(flow_id)
            if loaded is None or loaded.parallel or loaded.instance.version != instance.version:
                loaded = work.loaded[flow_id] = self._loader.load(instance)
            if grant is not None:
                self.gate.charge(job, grant)
        except StoreError:
            raise
        except CoflowsError as error:
            self._refuse(work, job, call, error)
            return True
        turn = Turn(
            self._cl,
            instance,
            message,
            origin=push.origin if push else message.reply_to,
            secrets=self._secrets,
            redactor=self._redactor,
            resources=self._resources,
            private_keys=loaded.private_keys,
            pause=partial(self._runner.pause, work),
            course=Course(self._cl, instance, message, read.chain, loaded.flow.own_chain),
        )
        retries = self._runner.retries
        letter = retries.begin(work, job, turn) if retries.counts(job) else None
        if letter is not None:
            self._turns.add(work, turn, failed=True, letter=letter)
            return False
        if failure is not None and not loaded.flow.takes_failures:
            turn.fail(failure)
            return self._turns.add(work, turn, failed=True)
        if job.cancelled:
            return self._turns.raised(work, turn, CallCancelledError("The message was cancelled by its sender."))
        if loaded.input_model is not None and call.answers is None and job.timer is None:
            try:
                message.data = check_input(loaded.input_model, message.data, instance.path.endpoint)
            except InputInvalidError as error:
                self._cl.session.refusals.count(error)
                turn.fail(Failure.of(error))
                return self._turns.add(work, turn, failed=True)
            except Exception as error:  # A validator of the flow's own.
                return self._turns.raised(work, turn, error)
        return self._turns.run(work, turn, loaded)

    def _over(self, work: Work, job: Job, sent: Sequence[Outgoing], *, accepted: bool) -> None:
        """The message is over without a turn, and this goes out. When its number is a new one in its order, that is
        recorded first: whoever has the partition next would wait for it. Who is refused (not ``accepted``) begins no
        order: a stranger leaves nothing in the store."""
        place, lease, claim = job.incoming.place, job.source.lease, job.claim
        if place is None or lease is None or claim is None or job.late or job.parked is not None:
            self._runner.settlement.finish([(job, sent)])
            return
        key = order_key(job.payload.flow_id, place.stream)
        passed = self._passed(work, key)
        # What comes again when later ones are worked off must not take the order back: the next worker would wait.
        is_new = accepted if passed is None else place.number > passed
        if not is_new:
            self._runner.settlement.finish([(job, sent)])
            return
        with work.draft.lock:
            content = work.draft.content()
            content.add(job, list(sent), {}, (), {claim.key: claim.version})
            content.orders[key] = (place.number, time.time())
            work.job = work.turn = None

    def _passed(self, work: Work, key: str) -> int | None:
        """How far the messages of a stream are worked off; None when none is."""
        with work.draft.lock:
            order = work.draft.content().orders.get(key)
        if order is not None:
            return order[0]
        entry = self._cl.store.get(key)
        return None if entry is None else int(read_entry(entry.value)["passed"])

    def _refresh(self, job: Job) -> None:
        flow_id = job.payload.flow_id
        job.done = self._cl.store.get(done_key(flow_id, job.incoming.message_id))
        job.metadata = self._cl.store.get(metadata_key(flow_id))
        job.fresh = True

    def _is_set(self, work: Work, job: Job, instance: Instance) -> bool:
        """Whether a timer is still there: not cancelled, not even by a turn of this batch."""
        key, _ = timer_keys(instance.address, job.incoming.message_id)
        with work.draft.lock:
            if key in work.draft.content().deletes:
                return False
        entry = self._cl.store.get(key)
        job.timer = None if entry is None else Claim(key, entry.version)
        return entry is not None

    def _refuse(self, work: Work, job: Job, call: Call, error: CoflowsError) -> None:
        """Answer with the error. Nothing but its number is recorded, so the message may be sent again."""
        logger.info("Refused message %s: %s", job.incoming.message_id, error)
        self._cl.session.refusals.count(error)
        sent: tuple[Outgoing, ...] = ()
        try:
            reply_to = reply_address(job, call)
        except CoflowsError as malformed:
            logger.warning("Dropped a message with a malformed reply address: %s", malformed)
        else:
            if reply_to is not None:
                sent = (refusal(self._cl.session, reply_to, Failure.of(error)),)
        self._over(work, job, sent, accepted=False)
