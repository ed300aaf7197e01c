"""Tasks by name, in threads, processes or on the event loop; each can be awaited and cancelled by its name."""

from __future__ import annotations

import asyncio
import inspect
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from coflows.errors import FlowError, FlowTimeoutError, PoolClosedError
from coflows.execution.flow_config import FlowType
from coflows.execution.settling import settled
from coflows.pools.process_pool import ProcessPool
from coflows.pools.thread_pool import TaskThreads

Input = dict[str, Any]


class ProcessPoolManager:
    """Runs tasks in at most ``max_threads`` threads and ``max_processes`` processes, by default as many as there are
    processors; both start when they are needed. ``memory_limit``: bytes of address space for a task in a process.
    Thread-safe, and not bound to one event loop.
    """

    def __init__(
        self, max_threads: int | None = None, max_processes: int | None = None, *, memory_limit: int | None = None
    ) -> None:
        self.max_threads = max_threads or os.cpu_count() or 1
        self.max_processes = max_processes or os.cpu_count() or 1
        self._memory_limit = memory_limit
        self._threads = TaskThreads(self.max_threads, "coflows-task")
        self._processes: ProcessPool | None = None
        self._tasks: dict[str, Future[Any]] = {}
        self._closed = False
        self._lock = threading.Lock()

    @property
    def active_tasks(self) -> set[str]:
        """The names of the tasks that wait or run."""
        with self._lock:
            return {process_id for process_id, task in self._tasks.items() if not task.done()}

    async def submit_task(
        self,
        process_id: str,
        flow_type: FlowType,
        func: Callable[[Input], Any],
        input_data: Input,
        timeout: float | None = None,
    ) -> Any:
        """Run ``func(input_data)``, sync or async, and give what it returns.

        Raises what it raises; FlowError when a task of that name is active; FlowTimeoutError when it is not done within
        ``timeout`` seconds from now, and then it is stopped (INLINE: only if it is async); asyncio.CancelledError when
        it was cancelled; WorkerDiedError, WorkerMemoryError, SerializationError for a process. If the caller is
        cancelled, so is the task.
        """
        asked: Future[Any] = Future()
        with self._lock:
            before = self._tasks.get(process_id)
            if before is not None and not before.done():
                raise FlowError(
                    f"Task {process_id} already running", hint="Await it, cancel it, or give this one another id."
                )
            self._tasks[process_id] = asked
        try:
            running = self._begin(FlowType(flow_type), process_id, func, input_data)
        except BaseException:
            self._forget(process_id, asked)
            raise
        with self._lock:
            if self._tasks.get(process_id) is asked:  # Else it was cancelled, and the name was taken again.
                self._tasks[process_id] = running
        try:
            if asked.cancelled():
                running.cancel()
            if not await settled(running, timeout):
                running.cancel()
                raise FlowTimeoutError(f"Task {process_id} timed out after {timeout} seconds")
            if running.cancelled():
                raise asyncio.CancelledError(f"Task {process_id} was cancelled")
            return running.result()
        finally:
            running.cancel()
            self._forget(process_id, running)

    async def cancel_task(self, process_id: str) -> None:
        """Stop the task, if there is one: who waits for it goes on at once, its process is ended."""
        with self._lock:
            task = self._tasks.get(process_id)
        if task is not None:
            task.cancel()

    async def wait_for_task(self, process_id: str, timeout: float | None = None) -> None:
        """Wait until the task is done, and raise what it raises; return at once when there is none. Raises
        FlowTimeoutError after ``timeout`` seconds, and then the task goes on."""
        with self._lock:
            task = self._tasks.get(process_id)
        if task is None:
            return
        if not await settled(task, timeout):
            raise FlowTimeoutError(f"Timeout waiting for task {process_id}")
        if not task.cancelled():
            task.result()

    def shutdown(self, wait: bool = True) -> None:
        """Cancel all tasks, and end the processes; with ``wait`` return when they are gone. Idempotent."""
        with self._lock:
            self._closed = True
            tasks, processes = list(self._tasks.values()), self._processes
        for task in tasks:
            task.cancel()
        self._threads.close()
        if processes is not None and wait:
            processes.close()
        elif processes is not None:
            threading.Thread(target=processes.close, name="coflows-shutdown", daemon=True).start()

    def renewed(self) -> ProcessPoolManager:
        """Another one like this."""
        return ProcessPoolManager(self.max_threads, self.max_processes, memory_limit=self._memory_limit)

    def _begin(
        self, flow_type: FlowType, process_id: str, func: Callable[[Input], Any], input_data: Input
    ) -> Future[Any]:
        if self._closed:
            raise PoolClosedError(f"Task {process_id} was submitted to pools that are shut down.")
        match flow_type:
            case FlowType.THREAD:
                return self._threads.submit(call, func, input_data)
            case FlowType.PROCESS:
                return self._pool().submit(call, func, input_data, name=process_id)
            case _:
                return _on_this_loop(func(input_data))

    def _pool(self) -> ProcessPool:
        with self._lock:
            if self._processes is None:
                self._processes = ProcessPool(self.max_processes, memory_limit=self._memory_limit)
            return self._processes

    def _forget(self, process_id: str, task: Future[Any]) -> None:
        with self._lock:
            if self._tasks.get(process_id) is task:
                del self._tasks[process_id]


def call(func: Callable[[Input], Any], input_data: Input) -> Any:
    """Call a sync or async function where there is no event loop."""
    value = func(input_data)
    return asyncio.run(_awaited(value)) if inspect.isawaitable(value) else value


def _on_this_loop(value: Any) -> Future[Any]:
    if inspect.isawaitable(value):
        return asyncio.run_coroutine_threadsafe(_awaited(value), asyncio.get_running_loop())
    done: Future[Any] = Future()
    done.set_result(value)
    return done


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value
