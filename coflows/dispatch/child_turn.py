"""The part of a turn that runs in a worker process: the flow is made, given its message, and what came of it goes back
as data. What it asks of other flows meanwhile goes through the turn of the dispatch worker (`process_turn.py`)."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from coflows.broker.topology import Route
from coflows.codec import code
from coflows.codec.state import decode_state, encode_state
from coflows.codec.wire import encode
from coflows.errors import CallCancelledError, FlowConfigError, FlowError
from coflows.flows import Flow
from coflows.flows.loading import resolve_flow_class
from coflows.futures import FlowFuture
from coflows.model.address import InstanceAddress
from coflows.model.failure import Failure
from coflows.model.messages import FlowMessage
from coflows.pools.child import Caller
from coflows.pools.raised import load_error
from coflows.proxy import FlowProxy
from coflows.redaction import Redactor, redact_logs
from coflows.waiting import PendingReply
from coflows.wakers import Wakers


@dataclass(frozen=True, slots=True)
class Given:
    """All that a turn begins with. ``flow_class`` is a name, or the pickled class when it was defined in __main__;
    ``state`` is encoded, None before the first turn."""

    flow_class: str | bytes
    base_paths: tuple[Path, ...]
    config: bytes
    state: bytes | None
    keeps_state: bool
    message: FlowMessage
    address: InstanceAddress
    subflows: Mapping[str, InstanceAddress]
    endpoint: str
    user_id: str
    secrets: Mapping[str, str]
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Post:
    """A message to be sent when the turn is committed: a reply when it has no route, else to the instance there,
    whose reply becomes a turn with ``push``."""

    message: FlowMessage
    route: Route | None = None
    push: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a turn; with a ``failure`` nothing else counts."""

    state: bytes | None = None
    posts: tuple[Post, ...] = ()
    failure: Failure | None = None


def run_turn(caller: Caller, given: Given) -> Outcome:
    """Run one turn in this process. Raises MemoryError alone."""
    turn = ChildTurn(caller, given)
    redactor = Redactor(given.secrets)
    redact_logs(redactor)
    try:
        flow = _make(given)
        flow.bind(turn)
        answer = flow.run(given.message)
        if inspect.isawaitable(answer):
            answer = asyncio.run(_awaited(answer))
        if isinstance(answer, dict):
            turn.send(flow.package_output_message(given.message, answer))
        elif answer is not None:
            name = type(flow).__name__
            raise TypeError(f"{name}.run returned a {type(answer).__name__}; return a dict (the reply) or None.")
        return Outcome(encode_state(flow.get_flow_state()) if given.keeps_state else None, tuple(turn.posts))
    except MemoryError:
        raise
    except BaseException as error:
        raised = not isinstance(error, CallCancelledError)
        return Outcome(failure=Failure.of(error, raised=raised, clean=redactor.clean))


def _make(given: Given) -> Flow:
    if isinstance(given.flow_class, bytes):
        flow_class = code.loads(given.flow_class)
    else:
        flow_class = resolve_flow_class(given.flow_class, given.base_paths)
    flow: Flow = flow_class(flow_config=decode_state(given.config))
    if given.state is None:
        flow.set_up_flow_state()
    else:
        flow.set_flow_state(decode_state(given.state))
    return flow


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


class ChildTurn:
    """The runtime that a flow sees in a worker process (FlowRuntime)."""

    def __init__(self, caller: Caller, given: Given) -> None:
        self.posts: list[Post] = []
        self._caller = caller
        self._given = given
        self._counter = 0
        self._wakers = Wakers()

    @property
    def flow_id(self) -> str:
        """The instance's id."""
        return self._given.address.flow_id

    @property
    def endpoint(self) -> str:
        """The endpoint it is an instance of."""
        return self._given.endpoint

    @property
    def user_id(self) -> str:
        """The user whose flow it is."""
        return self._given.user_id

    @property
    def secrets(self) -> Mapping[str, str]:
        """What the worker was given."""
        return self._given.secrets

    @property
    def idempotency_key(self) -> str:
        """The same for every run of this turn."""
        return self._given.idempotency_key

    def new_message_id(self, data: Mapping[str, Any]) -> str:
        """The same when the turn runs again and sends the same, and none that the dispatch worker's turn makes."""
        self._counter += 1
        text = f"{self.idempotency_key}\0process\0{self._counter}\0{data!r}"
        source = self._given.message.message_id
        return source[:12] + blake2b(text.encode(errors="surrogatepass"), digest_size=10).hexdigest()

    def send(self, message: FlowMessage) -> None:
        """Send a reply, when the turn is committed."""
        if message.reply_to is not None:
            self.post(Post(message))

    @property
    def resources(self) -> Mapping[str, Any]:
        """Nothing: what the worker was given stays in its process."""
        return {}

    def send_later(self, seconds: float, data: dict[str, Any]) -> str:
        """Not from a process of its own."""
        raise self._here("timers")

    def cancel_later(self, timer: str) -> None:
        """Not from a process of its own."""
        raise self._here("timers")

    def leave_no_record(self) -> None:
        """Without effect: its message is remembered."""

    def delete_instance(self, flow_id: str) -> None:
        """Not from a process of its own."""
        raise self._here("say over other instances")

    def read_records(self, names: Iterable[str]) -> dict[str, bytes]:
        """Not from a process of its own."""
        raise self._here("records")

    def scan_records(self, prefix: str) -> dict[str, bytes]:
        """Not from a process of its own."""
        raise self._here("records")

    def instance(self, address: InstanceAddress) -> FlowProxy:
        """The proxy of any instance whose address the flow knows. What is sent to it is in no order, and so waits for
        nothing that was sent before and is never refused for being late."""
        return FlowProxy(address, _ChildPort(self), in_order=False)

    def _here(self, what: str) -> FlowError:
        return FlowError(
            f"{self.endpoint} runs in a process of its own, where a flow has no {what}.",
            hint="Leave run_in out of its config, or keep them in a flow that calls it.",
        )

    def subflow(self, key: str) -> FlowProxy:
        """The proxy of a subflow."""
        try:
            return FlowProxy(self._given.subflows[key], _ChildPort(self))
        except KeyError:
            raise FlowConfigError(
                f"{self.endpoint} has no subflow {key!r}.", hint=f"It has: {', '.join(self._given.subflows)}."
            ) from None

    def post(self, post: Post) -> None:
        """Send when the turn is committed; raises SerializationError for what cannot be sent."""
        encode(post.message.to_dict())
        self.posts.append(post)

    def call(self, route: Route, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send now."""
        encode(message.to_dict())
        with self._caller.waiting():
            number = self._ask("call", route, message, confirm)
        reply = _ChildReply(message.message_id, route.address.user_id, self._wakers, self._caller)
        self._caller.call(code.dumps(("reply", number))).add_done_callback(lambda answer: _arrive(reply, answer))
        return FlowFuture(route.address, reply, lambda _reply: self._ask("cancel", number), self._caller.waiting)

    def _ask(self, *question: Any) -> Any:
        return _read(self._caller.call(code.dumps(question)).result())


class _ChildPort:
    """How the messages of subflow proxies leave (CallPort)."""

    def __init__(self, turn: ChildTurn) -> None:
        self._turn = turn

    def new_message_id(self, data: dict[str, Any]) -> str:
        """An id that is the same when the turn runs again."""
        return self._turn.new_message_id(data)

    def send(self, route: Route, message: FlowMessage) -> None:
        """Send when the turn is committed; nobody waits for a reply."""
        self._turn.post(Post(message, route))

    def push(self, route: Route, message: FlowMessage) -> None:
        """Send when the turn is committed; the reply becomes a turn of this instance."""
        self._turn.post(Post(message, route, push=True))

    def call(self, route: Route, message: FlowMessage, *, confirm: bool) -> FlowFuture:
        """Send now."""
        return self._turn.call(route, message, confirm=confirm)


class _ChildReply(PendingReply):
    """While a coroutine waits for it, its worker process does not count as working."""

    def __init__(self, message_id: str, sender: str, wakers: Wakers, caller: Caller) -> None:
        super().__init__(message_id, sender, wakers)
        self._caller = caller

    async def wait_async(self) -> None:
        """Wait until it has ended."""
        if not self.done():
            with self._caller.waiting():
                await super().wait_async()


def _read(data: bytes) -> Any:
    """An answer of `process_turn.py`: a value, or an error to be raised."""
    kind, value = code.loads(data)
    if kind == "error":
        raise load_error(value)
    return value


def _arrive(reply: PendingReply, answer: Future[bytes]) -> None:
    with contextlib.suppress(InvalidStateError):  # The flow may have cancelled it.
        try:
            reply.set_result(_read(answer.result()))
        except InvalidStateError:
            raise
        except Exception as error:
            reply.set_exception(error)
