"""Moves jobs: lets them start in turn, publishes what they sent, and acknowledges what is done."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.client import Client
from coflows.dispatch.admission import Admission, Resume, Start
from coflows.dispatch.handler import Handler
from coflows.dispatch.job import Job, Source
from coflows.dispatch.records import Outgoing
from coflows.errors import CoflowsError, ConflictError, UnroutableError
from coflows.model.messages import new_message_id
from coflows.model.wire import Call, InstancePayload, Recall, read_payload
from coflows.threads import ThreadPool

logger = logging.getLogger(__name__)


class Runner:
    """Runs the jobs of one dispatch worker on threads, or its async flows on an event loop. Thread-safe."""

    def __init__(
        self, cl: Client, *, concurrency: int, base_paths: Sequence[Path], secrets: Mapping[str, str]
    ) -> None:
        self._session = cl.session
        self._handler = Handler(cl, self, base_paths, secrets)
        self._admission: Admission[Job] = Admission(concurrency)
        self._lock = threading.Lock()
        self._threads = ThreadPool(f"coflows-turn-{cl.user_id[:8]}")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._payloads: TypeAdapter[Call | Recall] = TypeAdapter(InstancePayload)

    def read(self, delivery: Delivery, source: Source) -> Job | None:
        """Open a delivery. None when it is no message for us: it is rejected to the dead letters then."""
        try:
            incoming = self._session.open(delivery.body)
            payload = read_payload(self._payloads, incoming.value)
        except CoflowsError as error:
            logger.warning("Rejected a message from %s: %s", delivery.queue, error)
            delivery.reject(f"{error.code}: {error}")
            return None
        return Job(delivery, incoming, payload, source)

    def accept(self, job: Job) -> None:
        """Work the job off, after those of its instance that came before. Never blocks."""
        lane = job.payload.flow_id if job.source.lease is not None else new_message_id()
        self._do(lambda: self._admission.arrive(job, lane))

    def withdraw(self, jobs: Sequence[Job]) -> list[Job]:
        """Forget those that have not started; their deliveries stay unsettled. Gives them."""
        with self._lock:
            return self._admission.withdraw(jobs)

    def forget_partition(self, partition: int) -> None:
        """Forget cached flows of a partition that another worker may have had."""
        self._handler.loader.forget_partition(partition)

    def close(self) -> None:
        """Stop the event loop of async flows, if one was needed."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)

    # -- for the handler ---------------------------------------------------------------------------------------

    @contextmanager
    def pause(self, job: Job) -> Iterator[None]:
        """Give the job's slot to others while it waits."""
        self._do(lambda: self._admission.pause(job))
        try:
            yield
        finally:
            job.go_on.clear()
            self._do(lambda: self._admission.resume(job))
            job.go_on.wait()

    def run_async(self, job: Job, work: Awaitable[Any], then: Callable[[Future[Any]], None]) -> None:
        """Let the event loop run ``work`` and a thread do ``then``; meanwhile the job takes no slot, only its lane."""
        self._do(lambda: self._admission.pause(job))

        async def run() -> Any:
            return await work

        def ended(done: Future[Any]) -> None:
            self._threads.submit(lambda: self._guarded(job, lambda: then(done)))

        asyncio.run_coroutine_threadsafe(run(), self._event_loop()).add_done_callback(ended)

    def finish(self, job: Job, sent: Sequence[Outgoing]) -> None:
        """Publish what was committed; once all of it is confirmed, acknowledge. The instance is free at once: what its
        next turn sends is published after this."""
        send = self._session.send_encoded
        futures = [send(one.queue, one.recipient, one.message_id, one.data) for one in sent]
        self._do(lambda: self._admission.end(job))
        if futures:
            _when_all(futures, lambda error: self._settle(job, error))
        else:
            self._settle(job, None)

    def reject(self, job: Job, reason: str) -> None:
        """Put the message with the dead letters."""
        self._do(lambda: self._admission.end(job))
        job.delivery.reject(reason)
        job.source.settled(job)

    # -- the life of a job -------------------------------------------------------------------------------------

    def _do(self, event: Callable[[], list[Start[Job] | Resume[Job]]]) -> None:
        with self._lock:
            commands = event()
        for command in commands:
            if isinstance(command, Resume):
                command.job.go_on.set()
            else:
                self._start(command.job)

    def _start(self, job: Job) -> None:
        self._threads.submit(lambda: self._guarded(job, lambda: self._handler.handle(job)))

    def _guarded(self, job: Job, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._give_up(job, error)

    def _give_up(self, job: Job, error: Exception) -> None:
        """Something of ours failed, not the flow: the message goes back and is worked off again."""
        lease = job.source.lease
        self._handler.loader.forget(job.payload.flow_id)
        self._do(lambda: self._admission.end(job))
        if lease is None:
            logger.error("Could not work off a message of %s; it goes back.", job.delivery.queue, exc_info=error)
            job.delivery.requeue()
        elif not (isinstance(error, ConflictError) and lease.key in error.keys):
            logger.error("Could not work off a message of %s; it goes back.", job.delivery.queue, exc_info=error)
            job.source.start_over()
        elif job.epoch is not None and lease.holds(job.epoch):
            logger.warning("Another worker took %s over; what it has not seen goes back.", job.delivery.queue)
            job.source.start_over()
        job.source.settled(job)

    def _settle(self, job: Job, error: BaseException | None) -> None:
        if error is None:
            job.delivery.ack()
        else:
            logger.warning("A reply was not confirmed; message %s goes back: %s", job.incoming.message_id, error)
            job.delivery.requeue()
        job.source.settled(job)

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="coflows-async", daemon=True).start()
            return self._loop


def _when_all(futures: Sequence[Future[None]], then: Callable[[BaseException | None], None]) -> None:
    """Call ``then`` once all are done, with the first error that is not "no such queue": a session that is gone asks
    again for what is on record."""
    lock = threading.Lock()
    left = len(futures)
    problem: BaseException | None = None

    def one_done(future: Future[None]) -> None:
        nonlocal left, problem
        error = future.exception()
        with lock:
            left -= 1
            if error is not None and not isinstance(error, UnroutableError):
                problem = problem or error
            last = left == 0
        if isinstance(error, UnroutableError):
            logger.info("Nobody is there any more: %s", error)
        if last:
            then(problem)

    for future in futures:
        future.add_done_callback(one_done)
