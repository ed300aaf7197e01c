"""The process pool: what ends ends at once, what dies dies alone."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from pathlib import Path
from typing import Any

import pytest

from coflows.errors import (
    ConflictError,
    ExecutionError,
    FlowTimeoutError,
    PoolClosedError,
    SerializationError,
    TaskError,
    WorkerDiedError,
    WorkerMemoryError,
)
from coflows.pools.process_pool import Answer, ProcessPool
from tests import pool_tasks as tasks

TIMEOUT = 30
LIMIT = 800 * 2**20


@pytest.fixture
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as pool:
        yield pool


def pipe(path: Path) -> str:
    """A named pipe into which a task writes a process id."""
    os.mkfifo(path)
    return str(path)


def begun(path: Path) -> int:
    """Wait for what a task writes into its pipe."""
    return int(path.read_text())


def is_gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has. Waits for it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor) as file:
        return bool(select.select([file], [], [], TIMEOUT)[0])


def alive(pid: int) -> bool:
    """Whether the process still runs."""
    os.kill(pid, 0)
    return True


def test_results_come_back(pool: ProcessPool) -> None:
    assert [future.result(TIMEOUT) for future in [pool.submit(tasks.double, n) for n in range(50)]] == [
        2 * n for n in range(50)
    ]
    assert pool.submit(lambda text: text + "!", "by value").result(TIMEOUT) == "by value!"
    assert pool.submit(tasks.double, value=[1]).result(TIMEOUT) == [1, 1]
    assert pool.processes <= 2


def test_much_data_goes_both_ways(pool: ProcessPool) -> None:
    data = os.urandom(5_000_000)
    futures = [pool.submit(tasks.double, data) for _ in range(4)]
    assert all(future.result(TIMEOUT) == data * 2 for future in futures)


def test_what_a_task_raises_is_raised_with_its_traceback(pool: ProcessPool) -> None:
    with pytest.raises(ValueError, match="boom") as raised:
        pool.submit(tasks.fail, "boom").result(TIMEOUT)
    assert "pool_tasks.py" in str(raised.value.__cause__)
    with pytest.raises(ConflictError) as refused:
        pool.submit(tasks.conflict).result(TIMEOUT)
    assert (refused.value.message, refused.value.hint, refused.value.keys) == ("Two wrote.", "Again.", ("a", "b"))
    with pytest.raises(SystemExit):
        pool.submit(tasks.leave_in_order, 3).result(TIMEOUT)
    with pytest.raises(TaskError, match="OddError: one"):
        pool.submit(tasks.odd).result(TIMEOUT)
    assert pool.processes == 1, "an exception is no reason for another process"


def test_what_cannot_be_pickled_says_so(pool: ProcessPool) -> None:
    with pytest.raises(SerializationError, match="cannot be sent to a worker process"):
        pool.submit(tasks.double, threading.Lock())
    with pytest.raises(TypeError, match="cannot pickle"):
        pool.submit(tasks.a_lock).result(TIMEOUT)
    with pytest.raises(SerializationError, match=r"cannot be read here.*unreadable"):
        pool.submit(tasks.unreadable).result(TIMEOUT)
    assert pool.submit(tasks.double, 1).result(TIMEOUT) == 2


@pytest.mark.parametrize(
    ("function", "argument", "says", "code"),
    [
        (tasks.end_by, signal.SIGKILL, "SIGKILL", -9),
        (tasks.end_by, signal.SIGSEGV, "SIGSEGV", -11),
        (tasks.end_by, signal.SIGABRT, "SIGABRT", -6),
        (tasks.leave, 0, "exited with code 0", 0),
        (tasks.leave, 5, "exited with code 5", 5),
    ],
)
def test_a_death_fails_its_own_task_alone(
    function: Any, argument: int, says: str, code: int, pool: ProcessPool, tmp_path: Path
) -> None:
    neighbour = pool.submit(tasks.begin, pipe(tmp_path / "neighbour"))
    pid = begun(tmp_path / "neighbour")
    dying = pool.submit(function, argument, name="doomed")
    waiting = [pool.submit(tasks.double, n) for n in range(5)]
    with pytest.raises(WorkerDiedError, match=f"task doomed .*{says}") as died:
        dying.result(TIMEOUT)
    assert died.value.returncode == code
    assert [future.result(TIMEOUT) for future in waiting] == [0, 2, 4, 6, 8]
    assert not neighbour.done() and alive(pid)
    neighbour.cancel()


@pytest.mark.parametrize("function", [tasks.allocate_slowly, lambda: tasks.allocate(10**10)])
def test_a_task_out_of_memory_dies_alone(function: Any, pool: ProcessPool) -> None:
    first = pool.submit(tasks.process_id).result(TIMEOUT)
    with pytest.raises(WorkerMemoryError, match=f"limit {LIMIT} bytes") as died:
        pool.submit(function, memory_limit=LIMIT).result(TIMEOUT)
    assert isinstance(died.value, MemoryError)
    assert pool.submit(tasks.process_id).result(TIMEOUT) != first, "its process was not used again"


def test_a_memory_limit_holds_for_its_task_alone() -> None:
    with ProcessPool(1, memory_limit=LIMIT) as pool:
        with pytest.raises(WorkerMemoryError):
            pool.submit(tasks.allocate, LIMIT).result(TIMEOUT)
        assert pool.submit(tasks.allocate, 1000).result(TIMEOUT) == 1000
        assert pool.submit(tasks.allocate, LIMIT, memory_limit=4 * LIMIT).result(TIMEOUT) == LIMIT
        with pytest.raises(WorkerMemoryError):
            pool.submit(tasks.allocate, LIMIT).result(TIMEOUT)


def test_what_has_no_limit_has_none_after_one_that_had(pool: ProcessPool) -> None:
    first = pool.submit(tasks.process_id, memory_limit=LIMIT).result(TIMEOUT)
    assert pool.submit(tasks.allocate, LIMIT).result(TIMEOUT) == LIMIT
    assert pool.submit(tasks.process_id).result(TIMEOUT) == first


@pytest.mark.parametrize("function", [tasks.begin, tasks.spin, tasks.begin_with_a_process])
def test_a_cancelled_task_is_really_ended(function: Any, pool: ProcessPool, tmp_path: Path) -> None:
    future = pool.submit(function, pipe(tmp_path / "task"))
    pid = begun(tmp_path / "task")
    waited: list[object] = []
    ready = threading.Event()

    def waits() -> None:
        ready.set()
        waited.append(wait([future], TIMEOUT, FIRST_COMPLETED).done)

    waiter = threading.Thread(target=waits)
    waiter.start()
    ready.wait(TIMEOUT)
    assert future.cancel()
    waiter.join(TIMEOUT)
    assert waited == [{future}]
    with pytest.raises(CancelledError):
        future.result()
    assert is_gone(pid)
    assert pool.submit(tasks.double, 1).result(TIMEOUT) == 2


def test_a_task_that_waits_is_cancelled_without_ending_another(pool: ProcessPool, tmp_path: Path) -> None:
    running = [pool.submit(tasks.begin, pipe(tmp_path / str(n))) for n in range(2)]
    pids = [begun(tmp_path / str(n)) for n in range(2)]
    behind = pool.submit(tasks.begin, str(tmp_path / "never"))
    assert behind.cancel()
    last = pool.submit(tasks.double, 1)
    assert running[0].cancel()
    assert last.result(TIMEOUT) == 2
    assert is_gone(pids[0]) and not running[1].done() and not (tmp_path / "never").exists()


def test_a_timeout_ends_the_task(pool: ProcessPool, tmp_path: Path) -> None:
    files = [tmp_path / str(n) for n in range(2)]  # Not pipes: on a slow machine they may be ended before they begin.
    futures = [pool.submit(tasks.begin, str(file), name=file.name, timeout=1.5) for file in files]
    behind = pool.submit(tasks.double, 1, timeout=60)
    for number, future in enumerate(futures):
        with pytest.raises(FlowTimeoutError, match=rf"^Task {number} timed out after 1\.5 seconds$"):
            future.result(TIMEOUT)
    assert behind.result(TIMEOUT) == 2
    assert all(is_gone(int(file.read_text())) for file in files if file.exists())


def test_awaited_futures_cancel_too(pool: ProcessPool, tmp_path: Path) -> None:
    async def run() -> int:
        future = asyncio.wrap_future(pool.submit(tasks.begin, pipe(tmp_path / "task")))
        pid = await asyncio.to_thread(begun, tmp_path / "task")
        future.cancel()
        with pytest.raises(asyncio.CancelledError):
            await future
        return pid

    assert is_gone(asyncio.run(run()))


def test_a_task_asks_while_it_runs(pool: ProcessPool) -> None:
    def serve(data: bytes, answer: Answer) -> None:
        threading.Thread(target=answer, args=(data[::-1],)).start()

    assert pool.submit(tasks.ask, b"abc", serve=serve).result(TIMEOUT) == b"cba"

    def broken(data: bytes, answer: Answer) -> None:
        raise RuntimeError("broken")

    with pytest.raises(ExecutionError, match="could not be served"):
        pool.submit(tasks.ask, b"abc", serve=broken).result(TIMEOUT)


def test_tasks_that_wait_for_each_other_end() -> None:
    with ProcessPool(1) as pool:

        def level(depth: int) -> Future[bytes]:
            return pool.submit(tasks.ask_and_wait, bytes([depth]), serve=serve)

        def serve(data: bytes, answer: Answer) -> None:
            if data[0] == 12:
                answer(b"deep")
            else:
                level(data[0] + 1).add_done_callback(lambda future: answer(future.result()))

        assert level(0).result(TIMEOUT) == b"deep"
        assert pool.submit(tasks.double, 1).result(TIMEOUT) == 2
        assert pool.processes == 1, "who is not needed any more was ended"


def test_close_ends_everything(tmp_path: Path) -> None:
    pool = ProcessPool(1)
    running = pool.submit(tasks.begin, pipe(tmp_path / "task"), name="running")
    pid = begun(tmp_path / "task")
    waiting = pool.submit(tasks.double, 1, name="waiting")
    pool.close()
    pool.close()
    for future, name in ((running, "running"), (waiting, "waiting")):
        with pytest.raises(PoolClosedError, match=name):
            future.result(0)
    assert is_gone(pid) and pool.processes == 0
    with pytest.raises(PoolClosedError):
        pool.submit(tasks.double, 1)
    ProcessPool(1).close()


def test_processes_end_with_the_one_that_has_the_pool(tmp_path: Path) -> None:
    """kill -9 of the parent: the task is not left running."""
    marker = pipe(tmp_path / "task")
    program = (
        "import signal\nfrom coflows.pools.process_pool import ProcessPool\n"
        "from tests import pool_tasks\n"
        f"ProcessPool(1).submit(pool_tasks.begin, {marker!r})\nsignal.pause()"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=Path(__file__).parents[2])
    pid = begun(tmp_path / "task")
    parent.kill()
    parent.wait()
    assert is_gone(pid)


def test_a_process_left_behind_does_not_hold_the_pool(pool: ProcessPool) -> None:
    pool.submit(tasks.leave_a_process_behind, 600).result(TIMEOUT)
    with pytest.raises(WorkerDiedError):
        pool.submit(tasks.leave, 3).result(TIMEOUT)


def test_a_worker_that_cannot_start_fails_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with ProcessPool(1) as pool, pytest.raises(WorkerDiedError, match="could be started for task first"):
        pool.submit(tasks.double, 1, name="first").result(TIMEOUT)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with ProcessPool(1) as pool, pytest.raises(WorkerDiedError, match="could be started"):
        pool.submit(tasks.double, 1).result(TIMEOUT)
