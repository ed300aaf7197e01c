"""Asks a colony or one of its runs, and tells in the caller's words what came of it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from coflows.broker.topology import route_to
from coflows.client import Client
from coflows.errors import (
    CallTimeoutError,
    CoflowsError,
    EndpointNotFoundError,
    InstanceNotFoundError,
    RemoteFlowError,
)
from coflows.futures import FlowFuture
from coflows.model.address import InstanceAddress
from coflows.model.failure import Failure
from coflows.model.messages import FlowMessage
from coflows.workflow.colonies.places import GraphId, colony_address, run_address

logger = logging.getLogger(__name__)

LONG = 15.0
"""Seconds after which who waits for a workflow is told of executors that it lacks."""
TIMEOUT = 60.0
"""Seconds that a colony is waited for."""


class Asking:
    """Questions to the colonies of ``owner``; ``before`` is called with the name of the colony before each. Raises what
    Colonies tells. Thread-safe."""

    def __init__(self, cl: Client, owner: str, before: Callable[[str], None]) -> None:
        self._cl = cl
        self._owner = owner
        self._before = before

    def ask_colony(self, colonyname: str, data: dict[str, Any], timeout: float = TIMEOUT) -> dict[str, Any]:
        """The colony's answer; ``timeout`` in seconds."""
        try:
            return self._ask(colony_address(self._owner, colonyname), data, timeout)
        except InstanceNotFoundError as error:
            raise EndpointNotFoundError(
                f"User {self._owner} has no colony {colonyname!r} on this broker.", hint="Ask him for its name."
            ) from error

    def ask_run(self, graph: GraphId, data: dict[str, Any], timeout: float | None = TIMEOUT) -> dict[str, Any]:
        """The run's answer; ``timeout`` in seconds, None waits for as long as it takes."""
        try:
            return self._ask(run_address(self._owner, graph.colony, graph.flow_id), data, timeout)
        except InstanceNotFoundError as error:
            raise InstanceNotFoundError(f"There is no process graph {graph}.", hint="Was it removed?") from error

    def _ask(self, address: InstanceAddress, data: dict[str, Any], timeout: float | None) -> dict[str, Any]:
        future = self._start(address, data)
        try:
            if data["ask"] == "wait":
                return self._waited(future, address, timeout)
            return future.get_data(timeout)
        except RemoteFlowError as error:
            if error.remote_code is None:
                raise
            raise _as_it_was(error) from error
        except CallTimeoutError as error:
            future.cancel()
            raise _late(address, data["ask"], timeout) from error

    def _waited(self, future: FlowFuture, run: InstanceAddress, timeout: float | None) -> dict[str, Any]:
        """The reply of a run, which may take as long as it takes; but who waits for long is told for what."""
        until = None if timeout is None else time.monotonic() + timeout
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        if not done.wait(LONG if timeout is None else min(timeout, LONG)) and (timeout is None or timeout > LONG):
            try:
                lacks = self._ask(run, {"ask": "lacks"}, TIMEOUT if timeout is None else min(timeout - LONG, TIMEOUT))
            except CallTimeoutError:
                lacks = {}  # It was told that nobody coordinates it.
            for kind in lacks.get("executortypes", ()):
                colony = run.dispatch_point.removeprefix("colony.")
                command = f"python -m workers.executor --colony {colony} --type {kind}"
                logger.warning("Workflow %s waits for an executor of type %s: %s", run.flow_id, kind, command)
            done.wait(None if until is None else max(0.0, until - time.monotonic()))
        return future.get_data(0.0)

    def _start(self, address: InstanceAddress, data: dict[str, Any]) -> FlowFuture:
        self._before(address.dispatch_point.removeprefix("colony."))
        route = route_to(address)._replace(ordered=None)  # Who asks waits for the answer: there is no order to keep.
        return self._cl.call(route, FlowMessage(data), confirm=True)


def _late(address: InstanceAddress, ask: str, timeout: float | None) -> CallTimeoutError:
    colony = address.dispatch_point.removeprefix("colony.")
    command = f"python -m workers.executor --colony {colony}"
    if ask == "wait":
        return CallTimeoutError(
            f"Workflow {GraphId(colony, address.flow_id)} was not over in time.",
            hint=f"It goes on when its executors and its owner's are there: {command} --type TYPE.",
        )
    return CallTimeoutError(
        f"No answer of colony {colony} within {timeout:g} s.",
        hint=f"Somebody is to coordinate it: its owner runs {command} --type TYPE.",
    )


def _as_it_was(error: RemoteFlowError) -> CoflowsError:
    """The runtime's error that a colony raised."""
    code = error.remote_code or ""
    return Failure(code, error.error_type, error.error_text, error.hint).to_error("The colony")
