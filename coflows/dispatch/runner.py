"""Lets jobs start in turn on threads, in batches, and puts together what works them off."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from coflows.broker.base import Delivery
from coflows.client import Client
from coflows.dispatch.admission import Admission
from coflows.dispatch.batch import Batch, Commands, Resume
from coflows.dispatch.clock import Clock
from coflows.dispatch.coroutines import Coroutines
from coflows.dispatch.crew import Crew
from coflows.dispatch.custody import Custody
from coflows.dispatch.event_loop import Coroutine
from coflows.dispatch.flusher import Flusher
from coflows.dispatch.handler import Handler
from coflows.dispatch.intake import Intake
from coflows.dispatch.job import Job, Source
from coflows.dispatch.loader import Loader
from coflows.dispatch.outbox import Outbox, Turns
from coflows.dispatch.overtime import look
from coflows.dispatch.parking import ParkingLot
from coflows.dispatch.process_turn import ProcessTurns
from coflows.dispatch.quarantine import Quarantine
from coflows.dispatch.refused import Refused
from coflows.dispatch.retries import Retries
from coflows.dispatch.settlement import Settlement
from coflows.dispatch.turn_runner import TurnRunner
from coflows.dispatch.turnstile import Turnstile
from coflows.dispatch.work import Work
from coflows.dispatch.writer import Writer
from coflows.failpoints import Failpoints
from coflows.redaction import Redactor

logger = logging.getLogger(__name__)

BUDGET = 0.005
"""Seconds after which a batch begins no further turn: others wait too."""


class Runner:
    """Runs the jobs of one dispatch worker on threads, or its async flows on an event loop. Thread-safe."""

    def __init__(
        self,
        cl: Client,
        dispatch_point: str,
        worker: str,
        *,
        concurrency: int,
        base_paths: Sequence[Path],
        secrets: Mapping[str, str],
        resources: Mapping[str, Any],
        park_after: float,
    ) -> None:
        self._failpoints = Failpoints(cl.settings.failpoints)
        self.outbox = Outbox(cl.session, self._failpoints)
        self.quarantine = Quarantine()
        self.retries = Retries(cl, self)
        self._refused = Refused(self)
        self._processes = ProcessTurns(base_paths, concurrency)
        self._loader = Loader(cl.store, base_paths, self._processes)
        self._writer = Writer(cl.store, self, self._failpoints)
        redactor = Redactor(secrets)
        self._turns = TurnRunner(cl, self, self._loader, self._writer, redactor, self._failpoints)
        self._handler = Handler(cl, self, self._loader, self._turns, secrets, redactor, resources, dispatch_point)
        self.gate = self._handler.gate
        lot = ParkingLot(cl.store, dispatch_point, worker)
        self.custody = Custody(cl.store, lot, dispatch_point, self, park_after)
        self._clock = Clock(cl.session, cl.store, dispatch_point)
        self.turnstile = Turnstile(cl.session, cl.store, cl.settings.quota)
        self._intake = Intake(cl.session, cl.store, self, self.custody, self.turnstile, self._schedule)
        self.settlement = Settlement(
            self, self._intake, self.outbox, self.turnstile, self.custody, self.retries, self._refused, self._failpoints
        )
        self._admission: Admission[Job] = Admission(concurrency, attrgetter("caller"))
        self._lock = threading.Lock()
        self._crew = Crew(f"coflows-turn-{cl.user_id[:8]}")
        self._flusher = Flusher(f"coflows-flush-{cl.user_id[:8]}")
        self._works: dict[Batch[Job], Work] = {}
        self.coroutines = Coroutines(self)

    def deliver(self, delivery: Delivery, source: Source) -> None:
        """Work a delivery off, after those of its instances that came before. Never blocks."""
        self._intake.deliver(delivery, source)

    def go_on(self) -> None:
        """A source is full no more. Never blocks."""
        self._intake.go_on()

    def accept(self, jobs: Iterable[Job], *, next: bool = False) -> None:
        """Jobs that are next in their order. ``next``: see Crew."""
        arriving = [(job.lane, job) for job in jobs]
        if not arriving:
            return
        with self._lock:
            commands = self._admission.arrive(arriving)
        self._obey(commands, next=next)

    def withdraw(self, jobs: Sequence[Job]) -> list[Job]:
        """Those of the jobs that have not started are not started, those that wait to be sent again wait no more; gives
        them. Their messages come again."""
        with self._lock:
            withdrawn = self._admission.withdraw(jobs) + self._refused.withdraw(set(jobs))
        for job in withdrawn:
            self._intake.ended(job)
        return withdrawn

    def hold(self, lane: str) -> None:
        """Another worker has a message of this instance: start no other."""
        with self._lock:
            self._admission.hold(lane)

    def let_loose(self, lane: str) -> None:
        """It has it no longer; what it has left is not what is in memory here."""
        self._loader.forget(lane)
        with self._lock:
            commands = self._admission.let_loose(lane)
        self._obey(commands)

    def adopt(self, job: Job) -> None:
        """Work off a message that another worker left behind, before all others of its instance."""
        self._loader.forget(job.payload.flow_id)
        self._intake.adopt(job)
        with self._lock:
            commands = self._admission.let_loose(job.lane, job)
        self._obey(commands)

    def beat(self) -> None:
        """What the calling thread does is quick: no other need join it yet."""
        self._crew.beat()

    def later(self, seconds: float, task: Callable[[], None]) -> None:
        """Do something after a while."""
        timer = threading.Timer(seconds, self._schedule, (task,))
        timer.daemon = True
        timer.start()

    def forget_partition(self, partition: int, jobs: Iterable[Job]) -> None:
        """The jobs were given back, and another worker may have the partition from now on."""
        self._intake.forget(jobs, partition)
        self.forget_flows(partition)

    def forget_flows(self, partition: int) -> None:
        """Another worker may have changed the instances of this partition."""
        self._loader.forget_partition(partition)

    def tick(self) -> None:
        """To be called about once a second."""
        self.gate.tick()
        self._intake.tick()
        self._refused.tick(time.monotonic())
        works = list(self._works.values())
        look(works, time.monotonic(), self._turns.abandon)
        self.custody.tick(works)

    def expect(self, due: float) -> None:
        """A timer was committed that is due then (seconds since the epoch)."""
        self._clock.expect(due)

    def close(self) -> None:
        """Stop firing timers, the event loop of async flows and the processes of others, if they were needed."""
        self._clock.close()
        self._flusher.close()
        self._crew.close()
        self.coroutines.close()
        # After it: a turn that is ended now is begun again by another worker, and must not be told of here.
        self._processes.close()

    # -- for the handler ---------------------------------------------------------------------------------------

    @contextmanager
    def pause(self, work: Work) -> Iterator[None]:
        """Give the batch's slot to others while it waits; what it finished before is written, and what it has not
        begun is taken up by others when it must be given back. When several threads of a turn wait, the first gives the
        slot and the last gets one back."""
        with self._lock:
            over = work.batch not in self._works
            outer = not over and not work.waiting
            if outer:
                commands = self._admission.pause(work.batch)
                earlier, work.go_on = work.go_on, threading.Event()
            work.waiting += not over
        if over:  # A thread that its turn has left behind.
            yield
            return
        try:
            if outer:
                if earlier is not None:
                    earlier.set()  # It would get a slot only when the turn waits no more.
                self._obey(commands)
                self._write(work)
                self._crew.step_aside()
            yield
        finally:
            self._go_on(work)

    def alone(self, work: Work) -> None:
        """The batch begins no more, what it has finished is written now."""
        with self._lock:
            commands = self._admission.let_go(work.batch)
        self._obey(commands)
        self._write(work)

    def detach(self, work: Work, job: Job) -> Work:
        """The job goes on on the event loop, with its lane and without a slot; the batch goes on without it."""
        with self._lock:
            batch = self._admission.detach(work.batch, job.lane)
        alone = self._works[batch] = Work(batch, job=job, since=work.since)
        return alone

    def abandon(self, work: Work) -> None:
        """The batch's thread does not come back from its job: others get its slot."""
        with self._lock:
            commands = self._admission.abandon(work.batch)
        self._obey(commands)

    def finish_async(self, coroutines: Sequence[Coroutine]) -> None:
        """These have ended; what comes then needs a thread."""
        self._crew.submit(partial(self.coroutines.finish, coroutines), first=True)

    def join(self, works: Sequence[Work]) -> Work:
        """Jobs that were detached end together: they are one batch from now on."""
        with self._lock:
            batch = self._admission.join(work.batch for work in works)
        for work in works:
            self._works.pop(work.batch, None)
        together = self._works[batch] = Work(batch)
        return together

    def write(self, work: Work, *, alone: bool) -> None:
        """The last of a batch, see Writer."""
        self._writer.write(work, last=True, alone=alone)

    def fail(self, work: Work, error: Exception) -> None:
        """Something of ours failed while the batch's current job was worked off."""
        if work.job is not None:
            work.loaded.pop(work.job.payload.flow_id, None)
            self.settlement.give_up(work.job, error)

    def end(self, work: Work) -> None:
        """The batch is over: its lanes are free, and its flows are there for those who have them next."""
        with self._lock:
            self._works.pop(work.batch, None)
            self._keep(work, list(work.loaded))
            commands = self._admission.end(work.batch, [(job.lane, job) for job in work.again])
            work.again.clear()
        if work.go_on is not None:
            work.go_on.set()
        self._obey(commands)

    def is_all(self, turns: int) -> bool:
        """Whether nothing else is in hand than this many turns, as far as can be seen in passing."""
        return self._intake.open_jobs <= turns and self._admission.idle

    def finish(self, turns: Turns) -> None:
        """See Settlement."""
        self.settlement.finish(turns)

    def settle(self, jobs: Sequence[Job], error: BaseException | None) -> None:
        """See Settlement."""
        self.settlement.settle(jobs, error)

    # -- threads -----------------------------------------------------------------------------------------------

    def _obey(self, commands: Commands[Job], *, next: bool = False) -> None:
        for command in commands:
            if isinstance(command, Resume):
                work = self._works.get(command.batch)
                if work is not None and work.go_on is not None:
                    work.go_on.set()
                continue
            self._crew.submit(partial(self._run, command.batch), next=next)

    def _schedule(self, task: Callable[[], None], *, first: bool = True) -> None:
        self._crew.submit(task, first=first)

    def _run(self, batch: Batch[Job]) -> None:
        work = self._works[batch] = Work(batch)
        watched = False
        until = time.monotonic() + BUDGET
        try:
            while not work.draft.broken and (job := self._next(batch)) is not None:
                if not watched and (batch.begun > 1 or self._admission.waits):
                    watched = True
                    self._flusher.watch(lambda: self._do_not_wait(work))
                if not self._handler.handle(work, job) or time.monotonic() > until:
                    break
                self._crew.beat()
        except Exception as error:
            self.fail(work, error)
        self._complete(work)

    def _next(self, batch: Batch[Job]) -> Job | None:
        with self._lock:
            return self._admission.next(batch)

    def _do_not_wait(self, work: Work) -> None:
        """A batch takes its time: it begins no more, and what it has finished is written."""
        if work.batch in self._works:
            self.alone(work)

    def _complete(self, work: Work) -> None:
        """No more turns in this batch: write it, and let the lane go when that is done."""
        self._writer.write(work, last=True)
        with self._lock:
            commands = self._admission.release(work.batch)
        self._obey(commands)

    def _write(self, work: Work) -> None:
        """Write what a batch has finished that begins no more; then others may have the instances of it."""
        self._writer.write(work)
        batch = work.batch
        with self._lock:
            lanes = batch.lanes - {batch.lane}
            if not lanes:
                return
            self._keep(work, lanes)
            again = [job for job in work.again if job.lane in lanes]
            for job in again:
                work.again.remove(job)
            commands = self._admission.shed(batch, [(job.lane, job) for job in again])
        self._obey(commands)

    def _keep(self, work: Work, flow_ids: Iterable[str]) -> None:
        """Under the lock: nobody else has these flows until their lanes are given, which is next."""
        for flow_id in flow_ids:
            loaded = work.loaded.pop(flow_id, None)
            if loaded is not None and not loaded.parallel and not work.draft.broken:
                self._loader.keep(loaded)

    def _go_on(self, work: Work) -> None:
        """A thread of a turn waits no more."""
        with self._lock:
            work.waiting -= 1
            if work.waiting:
                return
            go_on = work.go_on if work.batch in self._works else None
            commands = [] if go_on is None else self._admission.resume(work.batch)
        self._obey(commands)
        if go_on is not None:
            go_on.wait()
        self._crew.step_in()
