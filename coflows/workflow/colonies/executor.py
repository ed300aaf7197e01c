"""An executor: takes steps of one type for a colony, and runs their functions in threads or processes."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection
from concurrent.futures import CancelledError, Future, InvalidStateError, wait
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Literal, Self

from coflows.broker.topology import route_to
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.dispatch.worker import GRACE, DispatchWorker
from coflows.endpoints import ensure_point
from coflows.errors import CoflowsError, ConfigurationError, StoreError
from coflows.futures import FlowFuture
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.layout import done_key, record_key
from coflows.model.messages import FlowMessage, new_message_id
from coflows.model.names import LOCAL, check_token, check_user_id
from coflows.mounting import Mounter
from coflows.pools.process_pool import ProcessPool
from coflows.resolution import MountRequest, derive_id
from coflows.serving import serve_flow
from coflows.threads import ThreadPool
from coflows.workflow.colonies.colonies import Colonies
from coflows.workflow.colonies.function_spec import FunctionSpec, read_spec
from coflows.workflow.colonies.functions import Function, Functions, bind
from coflows.workflow.colonies.places import (
    GraphId,
    ProcessId,
    check_colony,
    colony_address,
    executor_place,
    run_address,
)
from coflows.workflow.colonies.process_graph import Process, packed
from coflows.workflow.colonies.registry import HEARTBEAT
from coflows.workflow.graph.states import ProcessState
from coflows.workflow.said import said

logger = logging.getLogger(__name__)

FLOW_CLASS = "coflows.workflow.colonies.executor_flow.ExecutorFlow"
MOUNT_TIMEOUT = 60.0
SHORT = 0.05
"""Seconds after which a step's run is told that it was begun; most are over before, and cost no message more."""
PARK_AFTER = 600.0
"""Seconds after which a step's message is parked: well before a broker would take it for lost."""


class Executor:
    """Takes steps of ``executortype`` for a colony of ``owner``'s (this user's own when None), ``concurrency`` at once.

    It runs functions that were registered with it for whoever may submit to the colony, and code that came with a
    workflow only of ``trust`` (user ids) and of its own user. Functions with a parameter ``ctx`` get a dict with
    ``process``, ``colonyname``, ``idempotency_key``, ``client`` (a Colonies) and ``cl`` (the Client). ``runs_in``
    "process" gives each its own process, which is ended when its time is over or it is cancelled (and has neither
    ``ctx["client"]`` nor ``ctx["cl"]``); a thread then runs on unheard. Executors of one type share the work; what one
    that is gone was doing, another does. An executor of the colony's own user coordinates its runs too, unless
    ``coordinate`` is False. Thread-safe; a context manager; ends when the client closes.
    """

    def __init__(
        self,
        cl: Client,
        colonyname: str,
        executortype: str,
        owner: str | None = None,
        trust: Collection[str] = (),
        concurrency: int = 1,
        *,
        runs_in: Literal["thread", "process"] = "thread",
        coordinate: bool = True,
    ) -> None:
        if runs_in not in ("thread", "process"):
            raise ConfigurationError(f"An executor runs functions in a thread or a process, not in {runs_in!r}.")
        self.owner = cl.user_id if owner in (None, LOCAL) else check_user_id(owner)
        self.colonyname = check_colony(colonyname)
        self.executortype = check_colony(executortype, "Executor type")
        self._cl = cl
        self._functions = Functions(self.owner, colonyname, {cl.user_id, *map(check_user_id, trust)})
        self._concurrency = concurrency
        self._colonies = Colonies(cl, self.owner, coordinate=coordinate)
        self._coordinate = coordinate and self.owner == cl.user_id
        self._pool = ProcessPool(concurrency) if runs_in == "process" else None
        self._threads = ThreadPool(f"coflows-step-{executortype}")
        self._id = new_message_id()[-12:]
        self._address: InstanceAddress | None = None
        self._control: InstanceAddress
        self._worker: DispatchWorker | None = None
        self._running: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()
        self._stops = ExitStack()
        self._ending = threading.Event()

    def register(self, func: Function, name: str | None = None) -> Function:
        """Run ``func`` for steps with its name (or ``name``); works as a decorator. Gives the function."""
        self._functions.register(func, name)
        return func

    def start(self) -> Self:
        """Begin to take steps. Raises what store and broker raise."""
        with self._lock:
            if self._address is not None:
                return self
            control = self._control = self._mount(".control")
            address = self._address = self._mount()
        if self._coordinate:
            self._colonies.coordinate(self.colonyname)
        prefix = record_key(address.flow_id, "stop:")
        with ExitStack() as undo:
            watch = self._cl.store.watch(
                prefix, lambda keys: self._stop_these(key.removeprefix(prefix) for key in keys)
            )
            undo.callback(watch.close)
            resources = {"executor": self}
            undo.callback(DispatchWorker(self._cl, control.dispatch_point, concurrency=1, resources=resources).stop)
            self._worker = DispatchWorker(
                self._cl,
                address.dispatch_point,
                concurrency=self._concurrency,
                resources=resources,
                # What it has no place for, others may; so it takes no more than it runs, nor more while it runs.
                prefetch=self._concurrency,
                park_after=max(PARK_AFTER, self._cl.settings.park_after),
            )
            self._stops = undo.pop_all()
        beats = threading.Thread(target=self._beat, name="coflows-executor", daemon=True)
        beats.start()
        self._stops.callback(beats.join)
        self._cl.on_close(self.stop)
        logger.info("Executor %s of colony %s started.", self.executortype, self.colonyname)
        return self

    def stop(self, grace: float = GRACE) -> None:
        """Take nothing new, wait up to ``grace`` seconds for what runs, give back the rest. Idempotent."""
        with self._lock:
            if self._worker is None or self._ending.is_set():
                return
            self._ending.set()
        self._worker.stop(grace)
        self._stops.close()
        if self._pool is not None:
            self._pool.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- for its flow ------------------------------------------------------------------------------------------

    def perform(self, message: FlowMessage) -> dict[str, Any] | None:
        """Run the step that a message gives; None when it was stopped."""
        data, message_id = message.data, message.message_id
        spec = read_spec(data["spec"])
        answer = {"process": data["process"], "attempt": data["attempt"]}
        future: Future[Any] | None = None
        try:
            graph = GraphId(self.colonyname, data["run"])
            call = bind(self._functions.find(spec), data["inputs"], spec, self._context(graph, data, spec))
            future = self._begin(message_id, call, data["process"])
            if future is None:
                return None
            wait([future], SHORT)
            if not future.done():
                self._tell_run(graph, {"ask": "started", **answer})
            output = packed(future.result())
            encode({"output": output[1]})  # Whose name is in what it raises.
            return {**answer, "output": output}
        except CancelledError:
            logger.info("Step %s was stopped.", data["process"])
            return None
        except BaseException as error:
            raised = future is not None and future.done() and not future.cancelled() and future.exception() is error
            text = error.message if isinstance(error, CoflowsError) else said(error)
            if spec.expansion is None and not text.startswith(type(error).__name__):
                text = f"{type(error).__name__}: {text}"
            return {**answer, "error": text[:4000], "retry": raised}
        finally:
            with self._lock:
                self._running.pop(message_id, None)
            if future is not None and future.cancelled():
                self.forget([message_id], done=False)

    def note_stop(self, message_id: str) -> None:
        """An attempt is void: whichever process of this user has it is to stop it, or not to begin it."""
        assert self._address is not None
        flow_id, mark = self._address.flow_id, check_token(message_id)
        if self._cl.store.get(done_key(flow_id, mark)) is None:
            self._cl.store.commit({record_key(flow_id, f"stop:{mark}"): b""})
            self._stop_these([mark])

    def forget(self, message_ids: Collection[str], *, done: bool = True) -> None:
        """Delete what is on record about attempts that nobody asks about any more."""
        assert self._address is not None
        flow_id, marks = self._address.flow_id, [check_token(one) for one in message_ids]
        keys = [record_key(flow_id, f"stop:{mark}") for mark in marks]
        self._cl.store.commit(deletes=[*keys, *(done_key(flow_id, mark) for mark in marks if done)])

    # -- inside ------------------------------------------------------------------------------------------------

    def _mount(self, kind: str = "") -> InstanceAddress:
        endpoint, point = executor_place(self.owner, self.colonyname, self.executortype)
        endpoint, point = f"{endpoint}{kind}", f"{point}{kind}"
        ensure_point(self._cl, point, partitions=1)
        serve_flow(self._cl, FLOW_CLASS, endpoint, point, parallel_dispatch=not kind, singleton=True)
        request = MountRequest(
            endpoint=endpoint,
            client=LOCAL,
            request_id=derive_id("executor", endpoint, self._cl.user_id),
            deadline=time.time() + MOUNT_TIMEOUT,
        )
        (mounted,) = Mounter(self._cl).mount([request])
        return mounted.address

    def _begin(self, message_id: str, call: Function, name: str) -> Future[Any] | None:
        assert self._address is not None
        future: Future[Any] = Future()
        with self._lock:
            self._running[message_id] = future
        stop_key = record_key(self._address.flow_id, f"stop:{message_id}")
        if self._cl.store.get(stop_key) is not None:
            self.forget([message_id], done=False)
            return None
        if self._pool is None:
            self._threads.submit(lambda: _run(call, future))
            return future
        in_process = self._pool.submit(call, name=name)
        with self._lock:
            self._running[message_id] = in_process
        if future.cancelled():
            in_process.cancel()
        return in_process

    def _stop_these(self, message_ids: Any) -> None:
        for message_id in message_ids:
            with self._lock:
                future = self._running.get(message_id)
            if future is not None:
                future.cancel()

    def _context(self, graph: GraphId, data: dict[str, Any], spec: FunctionSpec) -> dict[str, Any]:
        process = Process(
            str(ProcessId(graph, data["process"])),
            str(graph),
            data["process"],
            spec,
            ProcessState.RUNNING,
            attempt=data["attempt"],
            executor=self._cl.user_id,
            started_at=time.time(),
        )
        context = {
            "process": process,
            "colonyname": self.colonyname,
            "idempotency_key": f"{process.processid}/{process.attempt}",
        }
        if self._pool is None:
            context |= {"client": self._colonies, "cl": self._cl}
        return context

    def _tell_run(self, graph: GraphId, data: dict[str, Any]) -> None:
        """Nobody waits for it, and it is in no order with what the turn sends."""
        address = run_address(self.owner, graph.colony, graph.flow_id)
        call, session = Call(address.flow_id, data, time.time()), self._cl.session
        session.post(route_to(address).queue, self.owner, new_message_id(), session.encode(call), _told)

    def _beat(self) -> None:
        assert self._address is not None
        places = {"address": self._address.to_dict(), "control": self._control.to_dict()}
        mine = {"executortype": self.executortype, "executor": self._id, "concurrency": self._concurrency}
        while not self._ending.is_set():
            self._tell_colony({"ask": "register", **mine, **places}, told=True)
            self._ending.wait(HEARTBEAT)
        self._tell_colony({"ask": "leave", **mine}, told=False)

    def _tell_colony(self, data: dict[str, Any], *, told: bool) -> None:
        address = colony_address(self.owner, self.colonyname)
        route = route_to(address)._replace(ordered=None)
        try:
            if told:
                self._cl.call(route, FlowMessage(data), confirm=False).add_done_callback(_refused)
            else:
                self._cl.send(route, FlowMessage(data))
        except CoflowsError as error:
            logger.warning("Colony %s could not be told of this executor: %s", self.colonyname, error)


def _run(call: Function, future: Future[Any]) -> None:
    if future.cancelled():
        return
    with contextlib.suppress(InvalidStateError):  # It was stopped meanwhile.
        try:
            result = call()
        except InvalidStateError:
            raise
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)


def _told(error: BaseException | None) -> None:
    if error is not None:
        logger.info("A run could not be told that its step was begun: %s", error)


def _refused(future: FlowFuture) -> None:
    try:
        future.try_get_data()
    except (CoflowsError, StoreError, CancelledError) as error:
        logger.warning("The colony does not take this executor: %s", error)
