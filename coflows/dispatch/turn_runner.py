"""Runs the turn of one message, on this thread or the event loop, and puts what comes of it into its batch's draft."""

from __future__ import annotations

import inspect
import logging
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from coflows.client import Client
from coflows.codec.state import encode_state
from coflows.dead_letters import OpenedLetter
from coflows.dispatch.effects import effects_of
from coflows.dispatch.event_loop import Coroutine
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loaded, Loader
from coflows.dispatch.process_turn import failure_of
from coflows.dispatch.stored import StoredBytes
from coflows.dispatch.turn import Turn
from coflows.dispatch.work import Work
from coflows.dispatch.writer import Writer
from coflows.errors import (
    CallCancelledError,
    FlowError,
    QuotaExceededError,
    SerializationError,
)
from coflows.failpoints import Failpoints
from coflows.flows import Flow
from coflows.model.failure import Failure
from coflows.model.layout import dead_key, order_key
from coflows.redaction import Redactor
from coflows.store.keys import MAX_VALUE_BYTES
from coflows.usage import Usage

if TYPE_CHECKING:
    from coflows.dispatch.runner import Runner

logger = logging.getLogger(__name__)


class TurnRunner:
    """Thread-safe; each batch is worked off by one thread at a time, and so is each instance."""

    def __init__(
        self, cl: Client, runner: Runner, loader: Loader, writer: Writer, redactor: Redactor, failpoints: Failpoints
    ) -> None:
        self._runner = runner
        self._loader = loader
        self._writer = writer
        self._redactor = redactor
        self._failpoints = failpoints
        self._stored = StoredBytes(cl.store, Usage(cl.store, cl.settings.quota))

    def run(self, work: Work, turn: Turn, loaded: Loaded) -> bool:
        """Run the flow. As for all that gives a bool here: False when the batch is not to go on."""
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
            return self.raised(work, turn, error)
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
            self._writer.write(work)
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
                self.raised(work, turn, CallCancelledError("The message was cancelled."))
            except BaseException as error:
                self.raised(work, turn, error)
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
            return self.raised(work, turn, error)
        if state is not None:
            try:
                self._stored.claim(loaded, len(state))
            except QuotaExceededError as error:
                if work.job is not None:
                    work.job.ended_by = error
                return self.raised(work, turn, error)
        return self.add(work, turn, state=state, records=records)

    def raised(self, work: Work, turn: Turn, error: BaseException) -> bool:
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
        return self.add(work, turn, failed=True)

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
        self.raised(alone, turn.anew(), CallCancelledError("It did not end."))
        self._writer.write(alone, last=True)

    def _came_back(self, turn: Turn) -> bool:
        """The thread of a turn that was abandoned: what it brings is too late."""
        turn.over()
        if turn.abandoned is not None:
            turn.abandoned()
        return False

    def add(
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
        turn.over()
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
            self._loader.keep(loaded)
        return not failed


def _encoded_state(flow: Flow) -> bytes:
    data = encode_state(flow.get_flow_state())
    if len(data) > MAX_VALUE_BYTES:
        raise SerializationError(
            f"The flow's state has {len(data)} bytes; at most {MAX_VALUE_BYTES} can be stored.",
            hint="Keep large data elsewhere, and in flow_state where it is.",
        )
    return data
