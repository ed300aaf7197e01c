"""Managed flows (seed 004): every member that it describes, with its result, and what is to be better than there."""

from __future__ import annotations

import asyncio
import os
import select
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from coflows.errors import (
    FlowConfigError,
    FlowError,
    FlowTimeoutError,
    PoolClosedError,
    SerializationError,
    StoreUnavailableError,
    WorkerDiedError,
    WorkerMemoryError,
)
from coflows.execution import (
    DependencyType,
    FlowConfig,
    FlowContext,
    FlowResult,
    FlowStatus,
    FlowType,
    ProcessFlow,
    ProcessPoolManager,
    ResultsManager,
)

TIMEOUT = 30
Input = dict[str, Any]


@pytest.fixture
def context() -> Iterator[FlowContext]:
    made = FlowContext(pool_manager=ProcessPoolManager(4, 2))
    yield made
    made.cleanup()


@pytest.fixture
def pools() -> Iterator[ProcessPoolManager]:
    made = ProcessPoolManager(2, 2)
    yield made
    made.shutdown()


def flow(
    context: FlowContext, process_id: str, processor: Callable[[Input], Any] | None = None, **more: Any
) -> ProcessFlow:
    made = ProcessFlow(processor or (lambda given: {"id": process_id}), FlowConfig(**more), process_id)
    context.register_flow(made)
    return made


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(coroutine, TIMEOUT)

    return asyncio.run(bounded())


def double(given: Input) -> Input:
    return {"value": given["value"] * 2}


async def double_later(given: Input) -> Input:
    await asyncio.sleep(0)
    return double(given)


def fail(given: Input) -> Input:
    raise ValueError("boom")


def begin(given: Input) -> None:
    """Say who works on it, through a named pipe, and never end."""
    Path(given["pipe"]).write_text(str(os.getpid()))
    threading.Event().wait()


def exhaust(given: Input) -> int:
    return len(bytearray(10**10))


def leave(given: Input) -> None:
    os._exit(3)


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def is_gone(pid: int) -> bool:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with os.fdopen(descriptor) as file:
        return bool(select.select([file], [], [], TIMEOUT)[0])


# -- FlowContext ---------------------------------------------------------------------------------------------------


def test_a_flow_is_registered_once(context: FlowContext) -> None:
    first = flow(context, "a")
    assert context.get_flow("a") is first and context.get_flow("b") is None
    with pytest.raises(FlowError, match="Flow with id a already registered"):
        flow(context, "a")
    with pytest.raises(FlowError, match="belongs to another context"):
        FlowContext().register_flow(first)


def test_dependencies_make_no_cycle(context: FlowContext) -> None:
    for name in "abc":
        flow(context, name)
    context.register_dependency("a", "b")
    context.register_dependency("b", "c", DependencyType.OPTIONAL)
    with pytest.raises(FlowError, match="Adding dependency would create a cycle"):
        context.register_dependency("c", "a")
    assert not context.has_cycle("a")
    with pytest.raises(FlowError, match="Cannot register dependency - flows not found"):
        context.register_dependency("a", "z")
    c = context.get_flow("c")
    assert c is not None and c.get_dependencies() == {"b"} == c.get_dependencies(DependencyType.OPTIONAL)
    assert c.get_dependencies(DependencyType.REQUIRED) == set()


def test_there_may_be_several_contexts_and_one_that_is_shared() -> None:
    assert FlowContext() is not FlowContext()
    shared = FlowContext.get_instance()
    assert FlowContext.get_instance() is shared
    alone = ProcessFlow(double)
    assert run(alone.execute({"value": 2})).output == {"value": 4}
    assert shared.get_flow(alone.process_id) is alone
    shared.cleanup()
    assert FlowContext.get_instance() is not shared
    FlowContext.get_instance().cleanup()


def test_fail_flow_keeps_a_result_and_reaches_all_descendants(context: FlowContext) -> None:
    for name in "abcde":
        flow(context, name)
    for parent, child in ("ab", "bc"):
        context.register_dependency(parent, child)
    context.register_dependency("c", "d", DependencyType.OPTIONAL)

    async def scenario() -> None:
        await context.fail_flow("a", "no more")
        await context.fail_flow("nobody", "is ignored")
        await context.wait_for_flows({"a", "b", "c"}, timeout=TIMEOUT)
        results = {name: await context.results_manager.get_result(name) for name in "abcde"}
        errors = {name: result and result.error for name, result in results.items()}
        assert errors == {
            "a": "no more",
            "b": "Required dependency a failed",
            "c": "Required dependency b failed",
            "d": None,
            "e": None,
        }
        assert results["a"] is not None and results["a"].status is FlowStatus.FAILED
        flows = {name: context.get_flow(name) for name in "abcde"}
        assert {name: one and one.status.value for name, one in flows.items()} == {
            **dict.fromkeys("abc", "failed"),
            **dict.fromkeys("de", "pending"),
        }

    run(scenario())


def test_handle_flow_failure_fails_those_that_require_it(context: FlowContext) -> None:
    a, b, c = (flow(context, name) for name in "abc")
    context.register_dependency("a", "b")
    context.register_dependency("a", "c", DependencyType.OPTIONAL)
    run(context.handle_flow_failure("a"))
    run(context.handle_flow_failure("nobody"))
    assert (a.status, b.status, c.status) == (FlowStatus.FAILED, FlowStatus.FAILED, FlowStatus.PENDING)
    assert b.result is not None and b.result.error == "Required dependency a failed"


def test_a_waiter_goes_on_when_a_flow_is_set_to_its_end(context: FlowContext) -> None:
    """From another thread; nothing is looked at again and again."""
    a, b = flow(context, "a"), flow(context, "b")

    async def scenario() -> None:
        waiting = asyncio.create_task(context.wait_for_flows({"a", "b"}))
        await asyncio.sleep(0)
        await asyncio.to_thread(setattr, a, "status", FlowStatus.COMPLETED)
        assert not waiting.done()
        await context.fail_flow("b", "boom")
        await waiting

    run(scenario())
    assert b.status is FlowStatus.FAILED and a.result is not None


def test_no_lock_is_held_while_waiting(context: FlowContext) -> None:
    """Two wait for the same flow, on two event loops, and a third fails it."""
    flow(context, "a")
    ready = threading.Barrier(3)

    def waits() -> None:
        async def wait() -> None:
            waiting = asyncio.create_task(context.wait_for_flows({"a"}))
            await asyncio.sleep(0)
            await asyncio.to_thread(ready.wait)
            await waiting

        asyncio.run(wait())

    threads = [threading.Thread(target=waits) for _ in range(2)]
    for thread in threads:
        thread.start()
    ready.wait(TIMEOUT)
    run(context.fail_flow("a", "boom"))
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def test_waiting_has_a_timeout_and_names_who_is_late(context: FlowContext) -> None:
    for name in "abc":
        flow(context, name)

    async def scenario() -> None:
        await context.wait_for_flows(set())
        await context.fail_flow("b", "boom")
        with pytest.raises(FlowTimeoutError, match=r"^Timeout waiting for flows: a, c$"):
            await context.wait_for_flows({"a", "b", "c"}, timeout=0.01)
        with pytest.raises(FlowError, match="Flow z not found"):
            await context.wait_for_flows({"z"})

    run(scenario())


def test_cleanup_forgets_and_wakes(context: FlowContext, tmp_path: Path) -> None:
    running = flow(context, "a", begin, flow_type=FlowType.PROCESS)
    path = pipe(tmp_path)

    async def scenario() -> None:
        executing = asyncio.create_task(running.execute({"pipe": str(path)}))
        pid = int(await asyncio.to_thread(path.read_text))
        context.cleanup()
        assert (await executing).error == "Its context was cleaned up"
        assert is_gone(pid)

    run(scenario())
    assert context.get_flow("a") is None and context.pool_manager.active_tasks == set()
    assert run(flow(context, "a", double).execute({"value": 1})).output == {"value": 2}, "and may be used again"


# -- flows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("processor", [double, double_later])
@pytest.mark.parametrize("kind", FlowType)
def test_a_flow_runs_where_it_is_told_to(kind: FlowType, processor: Any, context: FlowContext) -> None:
    made = flow(context, "a", processor, flow_type=kind)
    result = run(made.execute({"value": 21}))
    assert (result.process_id, result.status, result.output) == ("a", FlowStatus.COMPLETED, {"value": 42})
    assert result.error is None and result.start_time <= result.end_time
    assert run(context.results_manager.get_result("a")) == result == run(made.execute()), "it ran once"


def test_a_flow_in_a_process_is_in_another(context: FlowContext) -> None:
    made = flow(context, "a", lambda given: os.getpid(), flow_type="process")
    assert run(made.execute()).output != os.getpid()


def test_outputs_flow_along_dependencies(context: FlowContext) -> None:
    seen: dict[str, Input] = {}

    def note(name: str) -> Callable[[Input], Input]:
        def processor(given: Input) -> Input:
            seen[name] = given
            return {"from": name}

        return processor

    for name in "abcd":
        flow(context, name, note(name))
    flow(context, "bad", fail)
    for parent in "ab":
        context.register_dependency(parent, "c")
    last = context.get_flow("d")
    assert last is not None
    last.add_dependency("c")
    last.add_dependency("bad", DependencyType.OPTIONAL)
    assert run(last.execute({"x": 1})).output == {"from": "d"}
    assert seen == {
        "a": {"x": 1},
        "b": {"x": 1},
        "c": {"x": 1, "a": {"from": "a"}, "b": {"from": "b"}},
        "d": {"x": 1, "c": {"from": "c"}},
    }


def test_run_runs_everything_once_and_what_can_at_once(context: FlowContext) -> None:
    together = threading.Barrier(2)

    def meets(given: Input) -> int:
        return together.wait(TIMEOUT)

    flow(context, "a", meets)
    flow(context, "b", meets)
    flow(context, "c", fail)
    flow(context, "d")
    context.register_dependency("c", "d")
    results = run(context.run())
    assert {results["a"].output, results["b"].output} == {0, 1}
    assert (results["c"].error, results["d"].error) == ("boom", "Required dependency c failed")
    assert "ValueError: boom" in (results["c"].traceback or "")
    flow(context, "e", lambda given: sorted(given))
    context.register_dependency("a", "e")
    assert run(context.run())["e"].output == ["a"], "what comes later goes on from there"
    flow(context, "f")
    context.register_dependency("d", "f")
    assert run(context.run())["f"].error == "Required dependency d failed"


def test_a_flow_is_tried_again(context: FlowContext) -> None:
    tries: list[int] = []

    def third(given: Input) -> int:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("not yet")
        return len(tries)

    assert run(flow(context, "a", third, retries=2).execute()).output == 3
    tries.clear()
    result = run(flow(context, "b", third, retries=1).execute())
    assert (result.status, result.error, len(tries)) == (FlowStatus.FAILED, "not yet", 2)


def test_a_flow_that_takes_too_long_is_ended(context: FlowContext, tmp_path: Path) -> None:
    made = flow(context, "a", begin, flow_type=FlowType.PROCESS, timeout=1.5)
    below = flow(context, "b")
    context.register_dependency("a", "b")
    path = tmp_path / "file"  # Not a pipe: on a slow machine it may be ended before it begins.
    assert run(below.execute({"pipe": str(path)})).error == "Required dependency a failed"
    assert not path.exists() or is_gone(int(path.read_text()))
    assert made.result is not None and made.result.error == "Task a timed out after 1.5 seconds"


@pytest.mark.parametrize("how", ["fail_flow", "cancel_task", "cancel"])
def test_a_running_flow_is_stopped(how: str, context: FlowContext, tmp_path: Path) -> None:
    path = pipe(tmp_path)
    made = flow(context, "a", begin, flow_type=FlowType.PROCESS)

    async def scenario() -> None:
        executing = asyncio.create_task(made.execute({"pipe": str(path)}))
        pid = int(await asyncio.to_thread(path.read_text))
        assert made.status is FlowStatus.RUNNING and context.pool_manager.active_tasks == {"a"}
        match how:
            case "fail_flow":
                await context.fail_flow("a", "enough")
                assert (await executing).error == "enough"
            case "cancel_task":
                await context.pool_manager.cancel_task("a")
                assert (await executing).error == "Flow a was cancelled"
            case _:
                executing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await executing
        assert await asyncio.to_thread(is_gone, pid)

    run(scenario())
    assert made.status is FlowStatus.FAILED and context.pool_manager.active_tasks == set()


@pytest.mark.parametrize(("processor", "error"), [(leave, "exited with code 3"), (exhaust, "ran out of memory")])
def test_a_process_that_dies_fails_its_flow_alone(processor: Any, error: str) -> None:
    context = FlowContext(pool_manager=ProcessPoolManager(2, 2, memory_limit=800 * 2**20))
    flow(context, "bad", processor, flow_type=FlowType.PROCESS)
    for number in range(5):
        flow(context, str(number), double, flow_type=FlowType.PROCESS)
    results = run(context.run({"value": 1}))
    assert error in (results.pop("bad").error or "")
    assert [result.output for result in results.values()] == [{"value": 2}] * 5
    context.cleanup()


def test_a_config_is_checked() -> None:
    with pytest.raises(FlowConfigError, match="no flow type 'fibre'"):
        FlowConfig(flow_type="fibre")  # type: ignore[arg-type]
    with pytest.raises(FlowConfigError, match="timeout of 0"):
        FlowConfig(timeout=0)
    with pytest.raises(FlowConfigError, match="retries"):
        FlowConfig(retries=-1)
    with pytest.raises(FlowError, match="is not registered"):
        ProcessFlow(double).add_dependency("a")


# -- ProcessPoolManager --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FlowType)
def test_submit_task(kind: FlowType, pools: ProcessPoolManager) -> None:
    assert run(pools.submit_task("t", kind, double, {"value": 2})) == {"value": 4}
    with pytest.raises(ValueError, match="boom"):
        run(pools.submit_task("t", kind, fail, {}, timeout=TIMEOUT))
    assert pools.active_tasks == set()


@pytest.mark.parametrize("kind", [FlowType.THREAD, FlowType.PROCESS])
def test_a_task_of_the_same_name_waits_its_turn(kind: FlowType, pools: ProcessPoolManager, tmp_path: Path) -> None:
    path = pipe(tmp_path)

    async def scenario() -> None:
        task = asyncio.create_task(pools.submit_task("t", kind, begin, {"pipe": str(path)}))
        await asyncio.to_thread(path.read_text)
        assert pools.active_tasks == {"t"}
        with pytest.raises(FlowError, match="Task t already running"):
            await pools.submit_task("t", kind, double, {"value": 1})
        waiters = [asyncio.create_task(pools.wait_for_task("t")) for _ in range(3)]
        with pytest.raises(FlowTimeoutError, match=r"^Timeout waiting for task t$"):
            await pools.wait_for_task("t", timeout=0.01)
        await pools.cancel_task("t")
        await asyncio.gather(*waiters)
        with pytest.raises(asyncio.CancelledError):
            await task
        await pools.cancel_task("t")
        await pools.wait_for_task("t")
        assert pools.active_tasks == set()

    run(scenario())


@pytest.mark.parametrize("kind", [FlowType.THREAD, FlowType.PROCESS, FlowType.ASYNC])
def test_a_task_that_takes_too_long(kind: FlowType, pools: ProcessPoolManager, tmp_path: Path) -> None:
    stopped: list[str] = []

    async def never(given: Input) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.append("really")
            raise

    async def scenario() -> None:
        with pytest.raises(FlowTimeoutError, match=r"^Task t timed out after 1\.5 seconds$"):
            await pools.submit_task(
                "t", kind, never if kind is FlowType.ASYNC else begin, {"pipe": str(tmp_path / "file")}, timeout=1.5
            )
        await asyncio.sleep(0)

    run(scenario())
    assert stopped == (["really"] if kind is FlowType.ASYNC else [])
    assert run(pools.submit_task("t", kind, double, {"value": 1})) == {"value": 2}


def test_threads_that_hang_do_not_keep_their_places(pools: ProcessPoolManager) -> None:
    release = threading.Event()
    begun = [threading.Event() for _ in range(2)]

    def hang(given: Input) -> None:
        given["begun"].set()
        release.wait(TIMEOUT)

    async def scenario() -> None:
        hanging = [
            asyncio.create_task(pools.submit_task(str(n), FlowType.THREAD, hang, {"begun": begun[n]})) for n in range(2)
        ]
        for event in begun:
            await asyncio.to_thread(event.wait, TIMEOUT)
        behind = asyncio.create_task(pools.submit_task("behind", FlowType.THREAD, double, {"value": 1}))
        await pools.cancel_task("0")
        assert await behind == {"value": 2}
        assert pools.active_tasks == {"1"}
        release.set()
        await hanging[1]

    run(scenario())


def test_what_cannot_go_to_a_process(pools: ProcessPoolManager) -> None:
    with pytest.raises(SerializationError, match="Task t cannot be sent"):
        run(pools.submit_task("t", FlowType.PROCESS, double, {"value": threading.Lock()}))
    with pytest.raises(WorkerDiedError):
        run(pools.submit_task("t", FlowType.PROCESS, leave, {}))
    assert pools.active_tasks == set()


@pytest.mark.parametrize("wait", [True, False])
def test_shutdown_ends_everything(wait: bool, tmp_path: Path) -> None:
    pools, path = ProcessPoolManager(), pipe(tmp_path)
    assert pools.max_threads == pools.max_processes == os.cpu_count()

    async def scenario() -> int:
        task = asyncio.create_task(pools.submit_task("t", FlowType.PROCESS, begin, {"pipe": str(path)}))
        pid = int(await asyncio.to_thread(path.read_text))
        pools.shutdown(wait=wait)
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(PoolClosedError):
            await pools.submit_task("t", FlowType.THREAD, double, {"value": 1})
        return pid

    assert is_gone(run(scenario()))
    pools.shutdown()


# -- ResultsManager ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["memory", "directory", "sqlite"])
def test_results_are_kept(kind: str, tmp_path: Path) -> None:
    where = {"memory": None, "directory": tmp_path / "a" / "b", "sqlite": f"sqlite:///{tmp_path}/results.db"}[kind]
    results = ResultsManager(where)
    kept = FlowResult("a/../b", FlowStatus.COMPLETED, output={"set": {1, 2}}, metadata={"by": "me"})
    failed = FlowResult("x" * 500, FlowStatus.FAILED, error="boom", traceback="...")

    async def scenario() -> None:
        assert await results.get_result("a/../b") is None
        await results.save_result("a/../b", failed)
        await results.save_result("a/../b", kept)
        await results.save_result(failed.process_id, failed)
        assert await results.get_result("a/../b") == kept
        assert await results.get_result(failed.process_id) == failed
        results.cleanup()
        again = ResultsManager(where)
        for manager in (results, again):
            assert await manager.get_result("a/../b") == (None if kind == "memory" else kept)
            manager.cleanup()

    run(scenario())
    if kind == "directory":
        assert len(list((tmp_path / "a" / "b").iterdir())) == 2, "nothing outside, nothing left over"


@pytest.mark.parametrize("kind", ["directory", "sqlite"])
def test_results_outlive_their_context(kind: str, tmp_path: Path) -> None:
    where = str(tmp_path / "results") if kind == "directory" else f"sqlite:///{tmp_path}/results.db"
    context = FlowContext(results_manager=ResultsManager(where))
    flow(context, "a", double)
    flow(context, "b", fail)
    run(context.run({"value": 1}))
    context.cleanup()
    results = ResultsManager(where)
    assert run(results.get_result("a")).output == {"value": 2}
    assert run(results.get_result("b")).error == "boom"
    results.cleanup()


def test_a_result_that_cannot_be_kept_fails_its_flow(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    context = FlowContext(results_manager=ResultsManager(tmp_path / "file"))
    flow(context, "a", double)
    flow(context, "b")
    context.register_dependency("a", "b")
    results = run(context.run({"value": 1}))
    assert "cannot be kept" in (results["a"].error or "")
    assert results["b"].error == "Required dependency a failed"
    with pytest.raises(StoreUnavailableError):
        context.results_manager.save("a", results["a"])
    context.cleanup()


def test_flows_of_a_loop_that_is_closed_fail(context: FlowContext) -> None:
    """Who asked for them is gone; who waits for them is told."""
    release = threading.Event()
    slow = flow(context, "a", lambda given: release.wait(TIMEOUT))
    below = flow(context, "b")
    context.register_dependency("a", "b")

    async def leaves() -> None:
        with pytest.raises(FlowTimeoutError):
            await context.run(timeout=0.01)

    run(leaves())
    release.set()
    run(context.wait_for_flows({"a", "b"}, TIMEOUT))
    assert slow.status is below.status is FlowStatus.FAILED


def test_memory_errors_are_typed() -> None:
    limited = ProcessPoolManager(max_processes=1, memory_limit=800 * 2**20)
    with pytest.raises(WorkerMemoryError):
        run(limited.submit_task("t", FlowType.PROCESS, exhaust, {}))
    limited.shutdown()
