"""A pool of worker processes whose tasks can be ended, and whose deaths stay their own.

The standard library's pool breaks as a whole when one process dies and cannot stop a task; the libraries that can look
ten times a second. Here one thread waits for whatever comes first: a frame, a death, a deadline.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import selectors
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Self

from coflows.codec import code
from coflows.errors import ExecutionError, FlowTimeoutError, PoolClosedError, SerializationError, WorkerDiedError
from coflows.pools import wire
from coflows.pools.raised import load_error
from coflows.pools.roster import Command, Fail, Give, Kill, Roster, Start, Why
from coflows.pools.worker_process import WorkerProcess, death, out_of_memory

logger = logging.getLogger(__name__)

PAUSED_LIMIT = 64
"""How many workers may wait for others, beside those that work."""
Answer = Callable[[bytes], None]
Serve = Callable[[bytes, Answer], None]


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Task:
    name: str
    data: bytes
    timeout: float | None
    memory_limit: int | None
    serve: Serve | None
    future: Future[Any] = field(default_factory=Future)


class ProcessPool:
    """Runs functions in at most ``max_processes`` processes, started when they are needed. Thread-safe.

    ``memory_limit``: bytes of address space that a task may use, unless it is submitted with a limit of its own.
    Functions, arguments and results are pickled: by reference where they can be imported (the worker looks where
    this process looked when the worker was started), else by value, as those of a notebook. Do not submit what another
    user sent as anything but data.
    """

    def __init__(self, max_processes: int | None = None, *, memory_limit: int | None = None) -> None:
        self._memory_limit = memory_limit
        self._roster: Roster[_Task] = Roster(max_processes or os.cpu_count() or 1, PAUSED_LIMIT)
        self._workers: dict[int, WorkerProcess] = {}
        self._numbers = itertools.count(1)
        self._events: deque[Callable[[], Iterable[Command[_Task]]]] = deque()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._wake_reader, selectors.EVENT_READ)

    def submit(
        self,
        function: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        timeout: float | None = None,
        memory_limit: int | None = None,
        serve: Serve | None = None,
        owner: str = "",
        **kwargs: Any,
    ) -> Future[Any]:
        """Run ``function(*args, **kwargs)`` in a worker process. The future raises what the function raised, with the
        traceback as its cause; FlowTimeoutError when it ran for more than ``timeout`` seconds; WorkerDiedError or
        WorkerMemoryError when its process died; PoolClosedError. ``cancel()`` on it works at any time until it is
        done: whoever waits goes on at once, and the process is ended. So is it at a timeout.

        ``name`` is how errors call the task; one ``owner``, if any, does not get all processes. ``serve``: the function
        is given a Caller as its first argument, and what it asks is given to ``serve(data, answer)``, from the pool's
        thread: it must not block, and ``answer`` may be called later, from any thread. The future's callbacks are
        called from the pool's thread too.
        Raises SerializationError for what cannot be pickled.
        """
        name = name or f"{getattr(function, '__name__', 'task')}-{next(self._numbers)}"
        try:
            data = code.dumps((function, args, kwargs))
        except Exception as error:  # pickling runs the objects' own code, which may raise anything
            raise SerializationError(
                f"Task {name} cannot be sent to a worker process: {error}.",
                hint="Give it plain data; open connections, locks and files in the function.",
            ) from error
        task = _Task(name, data, timeout, memory_limit or self._memory_limit, serve)
        # Not the task itself, which has the future: what lies in a circle stays until garbage is collected.
        task.future.add_done_callback(partial(self._ended, weakref.ref(task)))
        with self._lock:
            if self._closed:
                raise PoolClosedError(f"Task {name} was submitted to a pool that is closed.")
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="coflows-pool", daemon=True)
                self._thread.start()
            self._post(lambda: self._roster.submit(task, task.timeout, time.monotonic(), owner))
        return task.future

    @property
    def processes(self) -> int:
        """How many worker processes there are now, without those that are just ending."""
        return sum(not worker.ending for worker in list(self._workers.values()))

    def close(self) -> None:
        """End all tasks and worker processes; returns when they are gone. Idempotent."""
        with self._lock:
            first, self._closed = not self._closed, True
            if first and self._thread is None:
                self._let_go()
            elif first:
                self._post(self._roster.close)
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- from any thread ---------------------------------------------------------------------------------------

    def _ended(self, known: weakref.ref[_Task], future: Future[Any]) -> None:
        if not future.cancelled():
            return
        future.set_running_or_notify_cancel()  # Wakes concurrent.futures.wait too.
        task = known()
        if task is not None:
            self._post(lambda: self._roster.cancel(task, time.monotonic()))

    def _post(self, event: Callable[[], Iterable[Command[_Task]]]) -> None:
        """Let the pool's thread do something."""
        self._events.append(event)
        # When the buffer is full the thread is going to look anyway; when it is closed there is nothing to do.
        with contextlib.suppress(OSError):
            self._wake_writer.send(b".")

    # -- the pool's thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        while not (self._roster.closed and not self._workers):
            deadline = self._roster.next_deadline
            for key, ready in self._selector.select(None if deadline is None else max(0, deadline - time.monotonic())):
                if key.data is None:
                    with contextlib.suppress(BlockingIOError):
                        self._wake_reader.recv(wire.CHUNK)
                elif ready & selectors.EVENT_READ:
                    self._obey(self._read(key.data))
                if key.data in self._workers and ready & selectors.EVENT_WRITE:
                    self._workers[key.data].flush()
                    self._attend(key.data)
            while self._events:
                self._obey(self._events.popleft()())
            self._obey(self._roster.expire(time.monotonic()))
        self._let_go()

    def _let_go(self) -> None:
        self._selector.close()
        self._wake_reader.close()
        self._wake_writer.close()

    def _obey(self, commands: Iterable[Command[_Task]]) -> None:
        for command in commands:
            match command:
                case Start(number):
                    self._start(number)
                case Give(number, task):
                    self._send(number, "task", task.data, task.memory_limit, task.serve is not None)
                    task.data = b""
                case Kill(number) if number in self._workers:
                    self._workers[number].kill()
                case Kill():
                    pass  # It could not be started.
                case Fail(task, why):
                    _fail(task, _failure(task, why))

    def _start(self, number: int) -> None:
        def exited() -> None:
            self._post(lambda: self._exited(number))

        try:
            worker = self._workers[number] = WorkerProcess(exited)
        except OSError as error:
            logger.error("No worker process could be started: %s", error)
            self._post(lambda: self._roster.died(number, time.monotonic()))
            return
        self._selector.register(worker.socket, selectors.EVENT_READ, number)

    def _send(self, number: int, *frame: Any) -> None:
        self._workers[number].send(*frame)
        self._attend(number)

    def _attend(self, number: int) -> None:
        worker = self._workers[number]
        if worker.socket in self._selector.get_map():
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.has_outgoing else 0)
            self._selector.modify(worker.socket, events, number)

    def _read(self, number: int) -> list[Command[_Task]]:
        worker = self._workers[number]
        frames = worker.receive()
        if frames is None:
            self._selector.unregister(worker.socket)  # ``exited`` comes next.
            return []
        return [command for frame in frames for command in self._heard(number, frame)]

    def _heard(self, number: int, frame: wire.Frame) -> list[Command[_Task]]:
        now, task = time.monotonic(), self._roster.task_of(number)
        match frame:
            case ["ready"]:
                return self._roster.ready(number, now)
            case _ if task is None:
                return []  # It was ended meanwhile.
            case ["done", data]:
                _succeed(task, data)
                return self._roster.ended(number, now)
            case ["raised", data]:
                _fail(task, _loaded_error(task, data))
                return self._roster.ended(number, now)
            case ["memory", _]:
                _fail(task, out_of_memory(task.name, task.memory_limit))
                return self._roster.cancel(task, now)
            case ["call", call, data]:
                self._serve(number, task, call, data)
                return []
            case ["pause"]:
                return self._roster.pause(number, now)
            case _:
                return self._roster.resume(number)

    def _serve(self, number: int, task: _Task, call: int, data: bytes) -> None:
        known = weakref.ref(task)  # What it waits for keeps ``answer``.

        def answer(data: bytes) -> None:
            self._post(lambda: self._answer(number, known(), call, data))

        assert task.serve is not None
        try:
            task.serve(data, answer)
        except Exception:
            logger.exception("What serves the calls of task %s failed.", task.name)
            self._post(lambda: self._roster.cancel(task, time.monotonic()))
            _fail(task, ExecutionError(f"The calls of task {task.name} could not be served."))

    def _answer(self, number: int, task: _Task | None, call: int, data: bytes) -> list[Command[_Task]]:
        if task is not None and self._roster.task_of(number) is task:
            self._send(number, "answer", call, data)
        return []

    def _exited(self, number: int) -> list[Command[_Task]]:
        worker = self._workers[number]
        while worker.socket in self._selector.get_map():  # What it said last.
            last = worker.receive()
            if last is None:
                self._selector.unregister(worker.socket)
                break
            for frame in last:
                self._obey(self._heard(number, frame))
            if not last:
                self._selector.unregister(worker.socket)  # What it started holds the socket open.
        del self._workers[number]
        code = worker.bury()
        task = self._roster.task_of(number)
        if task is not None:
            _fail(task, death(code, task.name, task.memory_limit))
        return self._roster.died(number, time.monotonic())


def _failure(task: _Task, why: Why) -> Exception:
    match why:
        case Why.EXPIRED:
            return FlowTimeoutError(f"Task {task.name} timed out after {task.timeout} seconds")
        case Why.CLOSED:
            return PoolClosedError(f"The pool was closed before task {task.name} was done.")
        case Why.UNSTARTED:
            return WorkerDiedError(
                f"No worker process could be started for task {task.name}.", hint="Its output tells why."
            )
        case Why.DIED:
            return WorkerDiedError(f"The worker process of task {task.name} died.")


def _loaded_error(task: _Task, data: bytes) -> BaseException:
    try:
        return load_error(data)
    except Exception as error:  # unpickling runs the objects' own code, which may raise anything
        return _unreadable(task, error)


def _unreadable(task: _Task, error: Exception) -> SerializationError:
    problem = SerializationError(f"What task {task.name} gave cannot be read here: {error!r}.")
    problem.__cause__ = error
    return problem


def _succeed(task: _Task, data: bytes) -> None:
    if task.future.done():
        return
    try:
        value = code.loads(data)
    except Exception as error:  # as above
        _fail(task, _unreadable(task, error))
        return
    with contextlib.suppress(InvalidStateError):  # It may be cancelled just now.
        task.future.set_result(value)


def _fail(task: _Task, error: BaseException) -> None:
    """End the task's future, unless it was ended before."""
    with contextlib.suppress(InvalidStateError):
        task.future.set_exception(error)
