"""The reply that a caller waits for, and the key by which another process can wait for it again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from concurrent.futures import CancelledError
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from coflows.errors import CallCancelledError, CallTimeoutError, NameInvalidError
from coflows.model.address import InstanceAddress
from coflows.model.calls import Reply
from coflows.model.failure import Failure
from coflows.model.messages import FlowMessage, new_message_id
from coflows.model.names import check_token
from coflows.waiting import PendingReply

logger = logging.getLogger(__name__)

Pause = Callable[[], AbstractContextManager[None]]
"""Gives the block within which a future blocks its caller."""
DISPATCH_POINT = "coflows_dispatch"
"""The dispatch point of who names none."""
COLONY = "colony."
"""Dispatch points of colonies begin so."""
SLOW_REPLY = 15.0
"""Seconds of waiting after which a log line says what may be missing."""


@dataclass(frozen=True, slots=True)
class FutureKey:
    """What is needed to ask for a recorded reply: which message, sent to which instance."""

    address: InstanceAddress
    message_id: str

    def __str__(self) -> str:
        where = self.address
        partition = "-" if where.partition is None else str(where.partition)
        return "/".join(
            (where.user_id, where.flow_endpoint, where.flow_id, where.dispatch_point, partition, self.message_id)
        )

    @classmethod
    def parse(cls, text: str) -> FutureKey:
        """Read what ``str`` wrote; raises NameInvalidError."""
        try:
            user_id, endpoint, flow_id, point, partition, message_id = text.split("/")
            address = InstanceAddress.from_dict(
                {
                    "user_id": user_id,
                    "flow_endpoint": endpoint,
                    "flow_id": flow_id,
                    "dispatch_point": point,
                    "partition": None if partition == "-" else int(partition),
                }
            )
            return cls(address, check_token(message_id))
        except (ValueError, AttributeError) as error:
            raise NameInvalidError(f"{text!r} is no future's key.", hint="Pass what future.key gave.") from error


class FlowFuture:
    """A reply to come. Thread-safe; ``await future`` gives the data.

    Waiting raises RemoteFlowError when the flow raised, the runtime's typed error when the call could not be made,
    CallTimeoutError (a TimeoutError) when ``timeout`` seconds pass first, CallCancelledError after ``cancel()``.
    A timeout loses nothing: wait again, or keep ``key`` and give it to ``Client.reopen_future`` in any process of
    the same user.
    """

    __slots__ = ("_address", "_cancel", "_pause", "_reply")

    def __init__(
        self,
        address: InstanceAddress,
        reply: PendingReply,
        cancel: Callable[[PendingReply], None] | None,
        pause: Pause = nullcontext,
    ) -> None:
        self._address = address
        self._reply = reply
        self._cancel = cancel
        self._pause = pause

    @property
    def key(self) -> str:
        """The text by which another process can wait for the same reply."""
        return str(FutureKey(self._address, self._reply.message_id))

    @property
    def reply(self) -> PendingReply:
        """The reply as it came, for the runtime."""
        return self._reply

    def get_message(self, timeout: float | None = None) -> FlowMessage:
        """Wait for the reply; ``timeout`` in seconds, None waits for as long as it takes."""
        return self._message(self._wait(timeout))

    def get_data(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the reply and give its data."""
        return self.get_message(timeout).data

    def try_get_message(self) -> FlowMessage | None:
        """The reply when it is there, else None; raises as ``get_message`` does when the call failed."""
        return self._message(self._wait(0)) if self._reply.done() else None

    def try_get_data(self) -> dict[str, Any] | None:
        """The reply's data when it is there, else None; raises as ``get_message`` does when the call failed."""
        message = self.try_get_message()
        return None if message is None else message.data

    def done(self) -> bool:
        """Whether waiting would return or raise at once."""
        return self._reply.done()

    def add_done_callback(self, callback: Callable[[FlowFuture], None]) -> None:
        """Call ``callback`` with this future when it is done, from a thread of the session's; it must not block."""
        self._reply.add_done_callback(lambda _reply: callback(self))

    def cancel(self) -> bool:
        """Stop waiting, and ask the flow to stop working on the message; True unless the reply was there already. The
        flow may have finished meanwhile: ``Client.reopen_future(future.key)`` tells."""
        if self._reply.cancelled():
            return True
        if not self._reply.cancel():
            return False
        if self._cancel is not None:
            self._cancel(self._reply)
        return True

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        return self._get_data_async().__await__()

    async def _get_data_async(self) -> dict[str, Any]:
        await self._reply.wait_async()
        try:
            return self._message(self._reply.result()).data
        except CancelledError:
            raise self._cancelled() from None

    def _wait(self, timeout: float | None) -> Reply:
        try:
            if self._reply.done():
                return self._reply.result()
            with self._pause():
                return self._wait_blocking(timeout)
        except CancelledError:
            raise self._cancelled() from None

    def _wait_blocking(self, timeout: float | None) -> Reply:
        first = SLOW_REPLY if timeout is None else min(timeout, SLOW_REPLY)
        try:
            return self._reply.result(first)
        except TimeoutError:
            if self._reply.done() or first == timeout:
                return self._expired(timeout)
        logger.warning(
            "No reply from %s after %.0f s; still waiting. Is a dispatch worker for %r running there? %s starts one.",
            self._where,
            first,
            self._address.dispatch_point,
            starts_worker(self._address.dispatch_point),
        )
        try:
            return self._reply.result(None if timeout is None else timeout - first)
        except TimeoutError:
            return self._expired(timeout)

    def _expired(self, timeout: float | None) -> Reply:
        if self._reply.done():
            return self._reply.result()
        raise self.expired(timeout)

    def expired(self, timeout: float | None) -> CallTimeoutError:
        """The error for when ``timeout`` seconds have passed."""
        return CallTimeoutError(
            f"No reply from {self._where} within {timeout} s.",
            hint="The call is not lost: wait again, or keep future.key and give it to cl.reopen_future(key).",
        )

    def _message(self, reply: Reply) -> FlowMessage:
        if reply.failure is not None:
            raise Failure.from_dict(reply.failure).to_error(self._where)
        return FlowMessage(
            data=reply.data or {},
            message_id=reply.message_id or new_message_id(),
            input_message_id=reply.answers,
            created_at=reply.created_at,
            sender=self._address.user_id,
            src_flow_id=reply.src_flow_id,
        )

    def _cancelled(self) -> CallCancelledError:
        return CallCancelledError(f"The call to {self._where} was cancelled.")

    @property
    def _where(self) -> str:
        return f"{self._address.flow_endpoint} of user {self._address.user_id[:8]}"

    def __repr__(self) -> str:
        return f"<FlowFuture {'done' if self.done() else 'pending'} of {self._where}>"


def starts_worker(dispatch_point: str) -> str:
    """The command that starts a worker of a dispatch point, for its owner."""
    colony = dispatch_point.removeprefix(COLONY)
    if colony != dispatch_point:
        return f"`python -m workers.executor --colony {colony} --type TYPE`"
    if dispatch_point == DISPATCH_POINT:
        return "`coflows worker all`"
    return f"`coflows worker all --dispatch-point {dispatch_point}`"
