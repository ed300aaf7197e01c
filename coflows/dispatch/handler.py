"""What is done with one message: seen before? allowed? then the flow's turn, and one commit of all its effects."""

from __future__ import annotations

import inspect
import logging
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coflows.client import Client
from coflows.codec.state import encode_state
from coflows.dead_letters import OpenedLetter
from coflows.dispatch.answers import refusal
from coflows.dispatch.course import Course
from coflows.dispatch.effects import effects_of
from coflows.dispatch.entrance import check_access, read_message, reply_address
from coflows.dispatch.event_loop import Coroutine
from coflows.dispatch.gate import Gate
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loaded, Loader
from coflows.dispatch.parking import Claim
from coflows.dispatch.process_turn import ProcessTurns, failure_of
from coflows.dispatch.records import Outgoing, TurnRecord
from coflows.dispatch.stored import StoredBytes
from coflows.dispatch.timers import is_timer, timer_keys
from coflows.dispatch.turn import Turn
from coflows.dispatch.work import Work
from coflows.dispatch.writer import Writer
from coflows.endpoints import read as read_entry
from coflows.errors import (
    AccessDeniedError,
    CallCancelledError,
    CoflowsError,
    FlowError,
    InputInvalidError,
    OutOfOrderError,
    QuotaExceededError,
    SerializationError,
    StoreError,
)
from coflows.failpoints import Failpoints
from coflows.flows import Flow
from coflows.flows.models import check_input
from coflows.instances import Instance, no_such_instance
from coflows.model.calls import Call
from coflows.model.failure import Failure
from coflows.model.layout import dead_key, done_key, metadata_key, order_key
from coflows.redaction import Redactor
from coflows.store.keys import MAX_VALUE_BYTES
from coflows.usage import Usage

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)


class Handler:
    """Thread-safe; each batch is handled by one thread at a time, and so is each instance."""

    def __init__(
        self,
        cl: Client,
        runner: Runner,
        base_paths: Sequence[Path],
        secrets: Mapping[str, str],
        resources: Mapping[str, Any],
        failpoints: Failpoints,
        processes: ProcessTurns,
        dispatch_point: str,
    ) -> None:
        self.loader = Loader(cl.store, base_paths, processes)
        self.gate = Gate(cl, self.loader)
        self._cl = cl
        self._runner = runner
        self._secrets = secrets
        self._redactor = Redactor(secrets)
        self._resources = resources
        self._failpoints = failpoints
        self._point = dispatch_point
        self._writer = Writer(cl.store, runner, failpoints)
        self._stored = StoredBytes(cl.store, Usage(cl.store, cl.settings.quota))

    def write(self, work: Work, *, last: bool = False, alone: bool = True) -> None:
        """See Writer."""
        self._writer.write(work, last=last, alone=alone)

    def handle(self, work: Work, job: Job) -> bool:
        """Work one message off; False when the batch is not to go on with the next one. What it raises is the runtime's
        own trouble, never the flow's: the message is to be worked off again."""
        if job.parked is None and job.source.gives_back(job):
            self._runner.put_off(job)
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
            instance = self.loader.find(flow_id, job.metadata)
            grant = check_access(self._cl, self.gate, job, instance, read, self._point)
            if record is not None:
                raise AccessDeniedError("Somebody else's message has this id.", hint="Send it under another one.")
            if is_timer(call, job.incoming.sender, self._cl.user_id) and not self._is_set(work, job, instance):
                logger.info("Timer %s was cancelled, or worked off before.", job.incoming.message_id)
                self._runner.finish([(job, ())])
                return True
            if job.late:
                raise OutOfOrderError(
                    "The message came after later ones had been worked off.", hint="Send it again, as a new message."
                )
            loaded = work.loaded.get(flow_id)
            if loaded is None or loaded.parallel or loaded.instance.version != instance.version:
                loaded = work.loaded[flow_id] = self.loader.load(instance)
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
            self._add(work, turn, failed=True, letter=letter)
            return False
        if failure is not None and not loaded.flow.takes_failures:
            turn.fail(failure)
            return self._add(work, turn, failed=True)
        if job.cancelled:
            return self._raised(work, turn, CallCancelledError("The message was cancelled by its sender."))
        if loaded.input_model is not None and call.answers is None and job.timer is None:
            try:
                message.data = check_input(loaded.input_model, message.data, instance.path.endpoint)
            except InputInvalidError as error:
                self._cl.session.refusals.count(error)
                turn.fail(Failure.of(error))
                return self._add(work, turn, failed=True)
            except Exception as error:  # A validator of the flow's own.
                return self._raised(work, turn, error)
        return self._run(work, turn, loaded)

    def _over(self, work: Work, job: Job, sent: Sequence[Outgoing], *, accepted: bool) -> None:
        """The message is over without a turn, and this goes out. When its number is a new one in its order, that is
        recorded first: whoever has the partition next would wait for it. Who is refused (not ``accepted``) begins no
        order: a stranger leaves nothing in the store."""
        place, lease, claim = job.incoming.place, job.source.lease, job.claim
        if place is None or lease is None or claim is None or job.late or job.parked is not None:
            self._runner.finish([(job, sent)])
            return
        key = order_key(job.payload.flow_id, place.stream)
        passed = self._passed(work, key)
        # What comes again when later ones are worked off must not take the order back: the next worker would wait.
        is_new = accepted if passed is None else place.number > passed
        if not is_new:
            self._runner.finish([(job, sent)])
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

    # -- refused -----------------------------------------------------------------------------------------------

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

    # -- the turn ----------------------------------------------------------------------------------------------

    def _run(self, work: Work, turn: Turn, loaded: Loaded) -> bool:
        job = work.job
        assert job is not None
        loaded.flow.bind(turn)
        self._failpoints.reach("mid_turn")
        work.turn, job.on_cancel = turn, turn.cancel
        if job.cancelled:
            turn.cancel()  # It came before there was a turn to tell.
        try:
            outcome = loaded.flow.run(turn.message)
        except BaseException as error:
            return self._raised(work, turn, error)
        if outcome is None or isinstance(outcome, dict) or not inspect.isawaitable(outcome):
            return self._ran(work, turn, loaded, outcome)
        if not self._built_on_what_is_committed(work, turn.flow_id):
            if inspect.iscoroutine(outcome):
                outcome.close()
            job.fresh, work.job, work.turn = False, None, None
            work.again.append(job)
            return False
        self._go_on_elsewhere(work, turn, loaded, outcome)
        return True

    def _built_on_what_is_committed(self, work: Work, flow_id: str) -> bool:
        """Whether no earlier turn of this instance is in the batch's draft; one that is, is written now."""
        with work.draft.lock:
            pending = flow_id in work.draft.content().flows
        if pending:
            self.write(work)
        else:
            work.draft.wait()  # It may be on its way.
        return not work.draft.broken

    def _go_on_elsewhere(self, work: Work, turn: Turn, loaded: Loaded, outcome: Awaitable[Any]) -> None:
        """The turn goes on on the event loop, as a batch of its own."""
        job = work.job
        assert job is not None
        work.job = work.turn = None
        if not loaded.parallel:
            work.loaded.pop(turn.flow_id, None)
        alone = self._runner.detach(work, job)
        alone.loaded[turn.flow_id], alone.turn = loaded, turn

        def ended(coroutine: Coroutine, work: Work) -> None:
            try:
                result = coroutine.result()
            except CancelledError:
                self._raised(work, turn, CallCancelledError("The message was cancelled."))
            except BaseException as error:
                self._raised(work, turn, error)
            else:
                self._ran(work, turn, loaded, result)

        running = Coroutine(alone, outcome, ended)

        def cancel() -> None:
            turn.cancel()
            self._runner.coroutines.cancel(running)

        turn.pause = nullcontext  # It has no slot to give.
        job.on_cancel = cancel
        self._runner.coroutines.run(running)
        if job.cancelled:
            cancel()

    def _ran(self, work: Work, turn: Turn, loaded: Loaded, outcome: object) -> bool:
        if turn.abandoned is not None:
            return self._came_back(turn)
        try:
            turn.check_cancelled()
            if isinstance(outcome, dict):
                turn.send(loaded.flow.package_output_message(turn.message, outcome))
            elif outcome is not None:
                name = type(loaded.flow).__name__
                raise TypeError(f"{name}.run returned a {type(outcome).__name__}; return a dict (the reply) or None.")
            state = None if loaded.parallel else _encoded_state(loaded.flow)
            records = loaded.flow.records.take_changes()
            turn.check_hidden("flow_state", state)
            for name, value in records.items():
                turn.check_hidden(f"records[{name!r}]", value)
            if records and loaded.parallel:
                raise FlowError(f"{turn.endpoint} is a parallel endpoint: its flows have no records.")
        except Exception as error:
            return self._raised(work, turn, error)
        if state is not None:
            try:
                self._stored.claim(loaded, len(state))
            except QuotaExceededError as error:
                if work.job is not None:
                    work.job.ended_by = error
                return self._raised(work, turn, error)
        return self._add(work, turn, state=state, records=records)

    def _raised(self, work: Work, turn: Turn, error: BaseException) -> bool:
        if turn.abandoned is not None:
            return self._came_back(turn)
        ended_by = None if work.job is None else work.job.ended_by
        failure = failure_of(error, self._redactor) if ended_by is None else Failure.of(ended_by)
        if failure.code == CallCancelledError.code:
            logger.info("%s %s was cancelled: %s", turn.endpoint, turn.flow_id, failure.text)
        else:
            what = failure.trace or f"{failure.error_type}: {failure.text}"
            logger.warning("%s %s raised: %s", turn.endpoint, turn.flow_id, what.rstrip())
        turn.fail(failure)
        return self._add(work, turn, failed=True)

    def abandon(self, work: Work, job: Job) -> None:
        """A turn that was ended does not end: its sender is answered now, its instance goes on without it, and its
        thread counts for its sender until it comes back."""
        self._runner.alone(work)
        with work.draft.lock:
            turn = work.turn
            if work.job is not job or turn is None or work.draft.broken or turn.abandoned is not None:
                return
            turn.abandoned = self._runner.turnstile.keep_in_hand(job)
            work.job = work.turn = None
            alone = self._runner.detach(work, job)
            alone.loaded[turn.flow_id] = work.loaded.pop(turn.flow_id)
        logger.warning("%s %s does not end; it goes on without effect.", turn.endpoint, turn.flow_id)
        self._runner.abandon(work)
        self._raised(alone, turn.anew(), CallCancelledError("It did not end."))
        self.write(alone, last=True)

    def _came_back(self, turn: Turn) -> bool:
        """The thread of a turn that was abandoned: what it brings is too late."""
        if turn.abandoned is not None:
            turn.abandoned()
        return False

    def _add(
        self,
        work: Work,
        turn: Turn,
        *,
        state: bytes | None = None,
        records: Mapping[str, bytes | None] | None = None,
        failed: bool = False,
        letter: OpenedLetter | None = None,
    ) -> bool:
        """Put the turn's effects into the batch's draft: new state, the record of the turn and what it sent, on
        condition that nobody else has done so, and that this worker still holds the lease."""
        job, loaded = work.job, work.loaded.get(turn.flow_id)
        if job is None or loaded is None:
            return self._came_back(turn)
        flow_id, lease, place = turn.flow_id, job.source.lease, job.incoming.place
        effects = effects_of(turn, job, loaded, records)
        if state is not None and state != loaded.state:
            effects.writes[loaded.instance.path.key("state")] = state
            loaded.state = state
            self._stored.count(loaded, effects.writes)
        if job.account is not None and turn.sent:
            self._runner.turnstile.charge(job, turn.sent_bytes)
        if letter is not None:
            effects.writes[dead_key(letter.id)] = letter.encode()
        elif job.letter is not None:
            effects.deletes.append(dead_key(job.letter))
        with work.draft.lock:
            if turn.abandoned is not None:
                return self._came_back(turn)
            loaded.lease, loaded.epoch = lease, job.epoch
            claim = job.claim
            if claim is not None:
                effects.conditions[claim.key] = claim.version
            content = work.draft.content()
            content.add(job, turn.sent, effects.writes, effects.deletes, effects.conditions)
            content.due += turn.due
            if lease is not None and place is not None:
                content.orders[order_key(flow_id, place.stream)] = (place.number, time.time())
            content.flows.add(flow_id)
            work.job = work.turn = None
        if failed:
            # The flow in memory may have changed before it raised; the next turn begins from what is committed.
            del work.loaded[flow_id]
        elif loaded.parallel:
            self.loader.keep(loaded)
        return not failed


def _encoded_state(flow: Flow) -> bytes:
    data = encode_state(flow.get_flow_state())
    if len(data) > MAX_VALUE_BYTES:
        raise SerializationError(
            f"The flow's state has {len(data)} bytes; at most {MAX_VALUE_BYTES} can be stored.",
            hint="Keep large data elsewhere, and in flow_state where it is.",
        )
    return data
