"""Turns in worker processes: a flow whose config says ``runs_in: process`` is stood in for by one that sends its turns
to a pool. What the flow asks of others comes back here, to the turn that holds the message."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any, cast

from coflows.codec import code
from coflows.codec.state import decode_state, encode_state
from coflows.dispatch.child_turn import Given, Outcome, run_turn
from coflows.dispatch.turn import Turn
from coflows.errors import CallCancelledError, ExecutionError
from coflows.flows import Flow
from coflows.flows.config import IN_PROCESS
from coflows.futures import FlowFuture
from coflows.instances import Instance
from coflows.model.failure import Failure
from coflows.model.messages import FlowMessage
from coflows.pools.process_pool import Answer, ProcessPool
from coflows.pools.raised import dump_error
from coflows.redaction import Redactor
from coflows.threads import ThreadPool


class TurnFailedError(Exception):
    """What the flow raised in its process, or how its process ended, is ``failure``."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.error_type}: {failure.text}")
        self.failure = failure


def failure_of(error: BaseException, redactor: Redactor) -> Failure:
    """What is told to who waits for a turn that ended in ``error``: whether the flow raised it, or the runtime did."""
    if isinstance(error, TurnFailedError):
        return error.failure
    return Failure.of(error, raised=not isinstance(error, CallCancelledError), clean=redactor.clean)


class ProcessTurns:
    """The worker processes of one dispatch worker, at most ``limit`` that work at once; started when a flow wants them.
    Thread-safe."""

    def __init__(self, base_paths: Sequence[Path], limit: int) -> None:
        self.base_paths = tuple(base_paths)
        self._limit = limit
        self._pool: ProcessPool | None = None
        self._lock = threading.Lock()
        self.threads = ThreadPool("coflows-process-turn")

    @staticmethod
    def wants(config: Mapping[str, Any]) -> bool:
        """Whether a flow with this config runs in a process."""
        return config.get("runs_in") == IN_PROCESS

    @property
    def pool(self) -> ProcessPool:
        """The pool."""
        with self._lock:
            self._pool = self._pool or ProcessPool(self._limit)
            return self._pool

    def close(self) -> None:
        """End the processes and what runs in them. Idempotent."""
        with self._lock:
            pool = self._pool
        if pool is not None:
            pool.close()


class FlowInProcess(Flow):
    """Stands in for a flow: holds its encoded state between turns, and runs each turn in a process."""

    def __init__(
        self, turns: ProcessTurns, flow_class: type[Flow], config: Mapping[str, Any], instance: Instance, parallel: bool
    ) -> None:
        super().__init__(flow_config=config)
        self._turns = turns
        self._instance = instance
        self._keeps_state = not parallel
        self._state: bytes | None = None
        # Where the class is defined in __main__, the process cannot import it: its __main__ is another one.
        own = flow_class.__module__ == "__main__"
        self._flow_class = code.dumps(flow_class) if own else f"{flow_class.__module__}.{flow_class.__name__}"
        self._config = encode_state(self.flow_config)

    def set_up_flow_state(self) -> None:
        """The flow does so itself, in its process."""
        self._state = None

    def set_flow_state(self, state: dict[str, Any]) -> None:
        """Go on from a stored state."""
        self._state = encode_state(state)

    def get_flow_state(self) -> dict[str, Any]:
        """The state after the last turn; private keys were left out in the process."""
        return {} if self._state is None else decode_state(self._state)

    async def run(self, input_message: FlowMessage) -> None:
        """One turn."""
        turn = cast(Turn, self._runtime)
        given = Given(
            flow_class=self._flow_class,
            base_paths=self._turns.base_paths,
            config=self._config,
            state=self._state,
            keeps_state=self._keeps_state,
            message=input_message,
            address=self._instance.address,
            subflows=self._instance.subflows,
            endpoint=turn.endpoint,
            user_id=turn.user_id,
            secrets=dict(turn.secrets),
            idempotency_key=turn.idempotency_key,
        )
        running: Future[Outcome] = self._turns.pool.submit(
            run_turn,
            given,
            name=f"{turn.endpoint} {turn.flow_id}",
            memory_limit=self.flow_config.get("memory_limit"),
            serve=_Calls(turn, self._turns.threads).serve,
            owner="" if input_message.sender == turn.user_id else input_message.sender or "",
        )
        turn.ends_with(running)
        try:
            outcome = await asyncio.wrap_future(running)
        except ExecutionError as error:  # The flow's own are in the outcome.
            raise TurnFailedError(Failure.of(error, clean=turn.redactor.clean)) from error
        if outcome.failure is not None:
            raise TurnFailedError(outcome.failure)
        for post in outcome.posts:
            if post.route is None:
                turn.send(post.message)
            else:
                turn.post(post.route, post.message, push=post.push)
        self._state = outcome.state


class _Calls:
    """Answers what one turn's process asks, each question in a thread of its own: sending may have to wait."""

    def __init__(self, turn: Turn, threads: ThreadPool) -> None:
        self._turn = turn
        self._threads = threads
        self._futures: list[FlowFuture] = []
        self._lock = threading.Lock()

    def serve(self, data: bytes, answer: Answer) -> None:
        """See ProcessPool.submit."""
        self._threads.submit(partial(self._serve, data, answer))

    def _serve(self, data: bytes, answer: Answer) -> None:
        with _answering(answer):
            match code.loads(data):
                case ["call", route, message, confirm]:
                    future = self._turn.call(route, message, confirm=confirm)
                    with self._lock:
                        self._futures.append(future)
                        number = len(self._futures) - 1
                    answer(code.dumps(("value", number)))
                case ["reply", number]:
                    self._futures[number].reply.add_done_callback(partial(_pass_on, answer))
                case ["cancel", number]:
                    answer(code.dumps(("value", self._futures[number].cancel())))


def _pass_on(answer: Answer, reply: Future[Any]) -> None:
    with _answering(answer):
        if not reply.cancelled():
            answer(code.dumps(("value", reply.result())))


@contextlib.contextmanager
def _answering(answer: Answer) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        answer(code.dumps(("error", dump_error(error))))
