"""Runs a graph in this process: threads, worker processes and an event loop, without a broker and without polling.

Whoever ends an attempt takes the graph's next step himself and goes on with what has become ready: along a chain
nothing changes threads. The caller's thread waits for the next timer, or for the end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import Any, Protocol

from coflows.workflow.graph.commands import ClearTimer, Decide, End, SetTimer, Start, Stop
from coflows.workflow.graph.events import Cancelled, Decided, Event, Failed, Started, Submitted, Succeeded, TimerDue
from coflows.workflow.graph.process import ProcessSpec
from coflows.workflow.graph.stepping import step
from coflows.workflow.graph.value import Graph
from coflows.workflow.local.announced import announced
from coflows.workflow.local.body import Body, Place
from coflows.workflow.local.loop_thread import LeftError, LoopThread
from coflows.workflow.local.outputs import Outputs
from coflows.workflow.local.ready import Job, ReadyQueue
from coflows.workflow.local.timers import Timers
from coflows.workflow.said import said

Attempt = tuple[str, int]
Watcher = Callable[[Graph], None]
Serve = Callable[[bytes, Callable[[bytes], None]], None]
ASYNC_LIMIT = 1000
"""How many async attempts are begun at once."""


class Processes(Protocol):
    """Worker processes; cancelling a future ends the process that works on it."""

    def submit(
        self, function: Callable[..., Any], /, *args: Any, name: str | None = None, serve: Serve | None = None
    ) -> Future[Any]:
        """Run ``function(caller, *args)`` in one of them; what it asks with ``caller.call(data)`` goes to ``serve``."""


class LocalRun:
    """One run of one graph. ``bodies`` has what each submitted process runs (a group: what its children run).

    ``fail_fast``: the first failure that nobody makes up for cancels the rest. ``watch`` is called with the graph after
    each change, in order, and holds the run up while it runs. Thread-safe; a run is used once.
    """

    def __init__(
        self,
        bodies: Mapping[str, Body],
        *,
        threads: int,
        processes: Callable[[], Processes],
        process_count: int,
        watch: Watcher = lambda graph: None,
        fail_fast: bool = False,
    ) -> None:
        self.graph = Graph()
        self.outputs = Outputs()
        self.errors: dict[str, BaseException] = {}
        """What the last attempt of a process raised."""
        self.failed_fast = False
        """Whether a failure cancelled the rest."""
        self._fail_fast = fail_fast
        self._bodies = bodies
        self._processes = processes
        self._watch = watch
        self._epoch = time.time() - time.monotonic()
        lock = threading.Lock()
        self._lock = lock
        self._changed = threading.Condition(lock)
        """The graph is over, or the earliest timer is another."""
        self._work = threading.Condition(lock)
        """There is something for a thread, or the graph is over."""
        self._timers = Timers()
        self._ready: dict[Place, ReadyQueue] = {place: ReadyQueue() for place in ("thread", "process", "async")}
        self._free: dict[Place, int] = {"process": process_count, "async": ASYNC_LIMIT}
        self._threads = threads
        self._idle = 0
        self._over = False
        self._broken: BaseException | None = None
        """What went wrong with the run itself: it ends with it, rather than never."""
        self._running: dict[Attempt, Future[Any] | None] = {}
        """What runs; None is in a thread, which nobody can stop: it is given up, and another takes its place."""
        self._loop = LoopThread("coflows-workflow-loop")

    def run(self, processes: Sequence[ProcessSpec], max_step_inputs: int) -> Graph:
        """Run to the end, and give the graph as it is then. Raises WorkflowInvalidError. Whatever interrupts the
        waiting (Ctrl-C) cancels the run."""
        try:
            self._tell(Submitted(tuple(processes), self._now(), max_step_inputs=max_step_inputs))
            self._wait()
            if self._broken is not None:
                raise self._broken
        except BaseException:
            self.cancel()
            raise
        finally:
            self._loop.close()
        return self.graph

    def cancel(self, process: str | None = None) -> None:
        """Stop a process, or all. What runs in a thread runs on there, and what it gives is dropped."""
        self._tell(Cancelled(process, self._now()))

    # -- the graph ---------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._epoch + time.monotonic()

    def _wait(self) -> None:
        while True:
            with self._lock:
                first = self._timers.earliest()
                if self._over:
                    return
                if first is None or (delay := first[1] - self._now()) > 0:
                    self._changed.wait(None if first is None else delay)
                    continue
                self._timers.clear(first[0])
            self._tell(TimerDue(first[0], self._now()))

    def _tell(self, event: Event, *, takes_one: bool = False) -> None:
        """``takes_one``: the caller's thread is going to take a job itself."""
        with self._lock:
            afterwards = self._step(event, takes_one=takes_one)
        for action in afterwards:
            action()

    def _step(self, event: Event, *, takes_one: bool = False) -> list[Callable[[], object]]:
        """With the lock held. Gives what is to be done when it is not."""
        try:
            self.graph, commands = step(self.graph, event)
            if self.graph.delta.statuses or self.graph.delta.head:
                self._watch(self.graph)
        except BaseException as error:
            self._broken, self._over = error, True
            self._changed.notify_all()
            self._work.notify_all()
            raise
        afterwards: list[Callable[[], object]] = []
        added = 0
        for command in commands:
            match command:
                case Start() | Decide():
                    place = self._place(command)
                    self._ready[place].put(command)
                    added += place == "thread"
                case SetTimer(timer, due):
                    self._timers.set(timer, due)
                    self._changed.notify_all()
                case ClearTimer(timer):
                    self._timers.clear(timer)
                case Stop(process, attempt):
                    afterwards += self._stop((process, attempt))
                case End():
                    self._over = True
                    self._changed.notify_all()
                    self._work.notify_all()
        self._call_threads(added - takes_one)
        if self._fail_fast and self.graph.head.failures and not (self.failed_fast or self._over):
            self.failed_fast = True
            afterwards.append(self.cancel)
        for place, free in self._free.items():
            while free and self._ready[place]:
                job = self._ready[place].take()
                if isinstance(job, Start) and self._begin(job, Future()):
                    free -= 1
                    afterwards.append(partial(self._launch, job))
            self._free[place] = free
        return afterwards

    def _begin(self, job: Start, running: Future[Any] | None) -> bool:
        """With the lock held: whether the attempt still counts; then it is begun. A process says itself when."""
        status = self.graph.statuses[job.process]
        if status.attempt != job.attempt or not status.given_out:
            return False
        self._running[job.process, job.attempt] = running
        if self._place(job) != "process":
            self._started(job)
        return True

    def _started(self, job: Start) -> None:
        """With the lock held."""
        self.graph, commands = step(self.graph, Started(job.process, job.attempt, self._now()))
        self._watch(self.graph)
        for command in commands:
            if isinstance(command, SetTimer):
                self._timers.set(command.timer, command.due)
                self._changed.notify_all()
            elif isinstance(command, ClearTimer):
                self._timers.clear(command.timer)

    def _end(self, job: Start, output: Any, error: BaseException | None, *, takes_one: bool = False) -> bool:
        """Tell how an attempt ended; False when it did not count any more."""
        process, attempt = job.process, job.attempt
        event: Event
        if error is not None:
            event = Failed(process, attempt, said(error), self._now())
        else:
            items = len(output) if isinstance(output, list | tuple) else None
            event = Succeeded(process, attempt, self._now(), items)
            if items is None and self.graph.spec(process).foreach:
                reason = f"a foreach step returns a list, and it returned {type(output).__name__}"
                event = Failed(process, attempt, reason, self._now(), retry=False)
        with self._lock:
            if (process, attempt) not in self._running:
                return False
            del self._running[process, attempt]
            place = self._place(job)
            if place in self._free:
                self._free[place] += 1
            if error is None:
                self.outputs[process] = output
            else:
                self.errors[process] = error
            afterwards = self._step(event, takes_one=takes_one)
        for action in afterwards:
            action()
        return True

    def _stop(self, attempt: Attempt) -> list[Callable[[], object]]:
        """With the lock held; futures are cancelled without it, for they call back."""
        if attempt not in self._running:
            return []
        running = self._running.pop(attempt)
        if running is None:
            self._threads += 1
            self._call_threads(1)
            return []
        self._free[self._body(attempt[0]).place] += 1
        return [running.cancel]

    def _body(self, process: str) -> Body:
        return self._bodies[self.graph.spec(process).name]

    def _place(self, job: Job) -> Place:
        return "thread" if isinstance(job, Decide) else self._body(job.process).place

    # -- threads -----------------------------------------------------------------------------------------------

    def _call_threads(self, count: int) -> None:
        """With the lock held: let up to ``count`` threads come to work."""
        woken = max(min(count, self._idle), 0)
        self._idle -= woken
        self._work.notify(woken)
        for _ in range(min(count - woken, self._threads)):
            self._threads -= 1
            threading.Thread(target=self._thread, name="coflows-workflow", daemon=True).start()

    def _thread(self) -> None:
        while (job := self._take()) is not None:
            if isinstance(job, Decide):
                self._decide(job.process)
                continue
            output, error = None, None
            try:
                body = self._body(job.process)
                output = body.function(*body.arguments(self.outputs.arguments(self.graph, job.process)))
            except BaseException as raised:  # SystemExit too ends the step, and not this thread alone
                error = raised
            if not self._end(job, output, error, takes_one=True):
                return  # It was given up, and another thread has its place.

    def _take(self) -> Job | None:
        """The next job for this thread; None when there will be none."""
        queue = self._ready["thread"]
        with self._lock:
            while not self._over:
                if not queue:
                    self._idle += 1
                    self._work.wait()
                    continue
                job = queue.take()
                if isinstance(job, Decide) or self._begin(job, None):
                    return job
        return None

    def _decide(self, process: str) -> None:
        condition = self._body(process).condition
        event: Event
        try:
            event = Decided(process, condition is None or bool(condition()), self._now())
        except BaseException as error:  # as above
            self.errors[process] = error
            event = Failed(process, 0, said(error), self._now())
        self._tell(event, takes_one=True)

    # -- elsewhere ---------------------------------------------------------------------------------------------

    def _launch(self, job: Start) -> None:
        body = self._body(job.process)
        try:
            arguments = body.arguments(self.outputs.arguments(self.graph, job.process))
            if body.place == "async":
                future = self._loop.submit(body.function, *arguments)
            else:
                begun = partial(self._begun, job)
                future = self._processes().submit(announced, body.function, *arguments, name=job.process, serve=begun)
        except Exception as error:
            self._end(job, None, error)
            return
        with self._lock:
            wanted = (job.process, job.attempt) in self._running
            if wanted:
                self._running[job.process, job.attempt] = future
        if wanted:
            future.add_done_callback(lambda done: self._landed(job, done))
        else:
            future.cancel()

    def _begun(self, job: Start, data: bytes, answer: Callable[[bytes], None]) -> None:
        """A worker process has come to it: from now on counts how long it runs."""
        answer(data)
        with self._lock:
            self._started(job)

    def _landed(self, job: Start, future: Future[Any]) -> None:
        if future.cancelled():
            self._end(job, None, CancelledError())
            return
        error = future.exception()
        if isinstance(error, LeftError):
            error = error.error
        self._end(job, None if error else future.result(), error)
