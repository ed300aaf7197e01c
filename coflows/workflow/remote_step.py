"""A step that is a served flow, here or at another user."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

from coflows.client import Client
from coflows.errors import CoflowsError, WorkflowError
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, release_flow_instance
from coflows.workflow.decorators import Remote

logger = logging.getLogger(__name__)


class RemoteStep:
    """One instance for all nodes of the step, fetched with the first and given back after the run; ``fetched`` is told
    its id. No thread waits for replies. A node that is cancelled, or runs out of time, cancels its call."""

    def __init__(
        self,
        name: str,
        remote: Remote,
        function: Callable[..., Any],
        client: Client | None,
        *,
        takes_inputs: bool,
        fetched: Callable[[str], None] = lambda instance_id: None,
    ) -> None:
        if client is None:
            raise WorkflowError(
                f"Step {name} asks {remote.flow_endpoint} of a user, and the flow has no client.",
                hint="Give one: MyFlow(name, input, client=connect(user)).",
            )
        self._name = name
        self._takes_inputs = takes_inputs
        self._remote = remote
        self._function = function
        self._client = client
        self._told = fetched
        self._lock = threading.Lock()
        self._instance: FlowProxy | None = None

    async def ask(self, *inputs: Any) -> dict[str, Any]:
        """Send the input, and give the reply."""
        data = self._message(inputs)
        instance = await asyncio.to_thread(self._fetched)
        future = instance.submit(data)
        try:
            async with asyncio.timeout(self._remote.timeout):
                return await future
        except TimeoutError as error:
            raise error if isinstance(error, CoflowsError) else future.expired(self._remote.timeout) from None
        finally:
            future.cancel()  # Nothing happens when the reply is there.

    def release(self) -> None:
        """Give the instance back. An owner who is away does so later, and does not spoil the run."""
        if self._instance is None:
            return
        try:
            release_flow_instance(self._client, self._instance)
        except CoflowsError as error:
            logger.warning("The instance of step %s was not given back yet: %s", self._name, error)

    def _message(self, inputs: tuple[Any, ...]) -> dict[str, Any]:
        made = self._function(*inputs) if self._takes_inputs else self._function()
        data = inputs[0] if made is None and len(inputs) == 1 else made
        if not isinstance(data, dict):
            raise WorkflowError(
                f"{self._remote.flow_endpoint} is sent a dict, not {type(data).__name__}.",
                hint=f"Let {self._name} return the dict to send.",
            )
        return data

    def _fetched(self) -> FlowProxy:
        with self._lock:
            if self._instance is None:
                remote = self._remote
                overrides = dict(remote.config_overrides or {})
                self._instance = get_flow_instance(self._client, remote.flow_endpoint, remote.user_id, overrides)
                self._told(self._instance.get_instance_id())
            return self._instance
