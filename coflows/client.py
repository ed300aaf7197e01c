"""One user's open session: keys, store, broker, and the messages that leave in his name."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import ExitStack, nullcontext
from functools import partial
from types import TracebackType
from typing import Any, Self

from coflows.broker.base import Broker, QueueSpec
from coflows.broker.topology import Route, dead_letter_queue, door_queue, route_to
from coflows.codec.wire import decode, encode
from coflows.config import Settings
from coflows.errors import (
    CallTimeoutError,
    ConfigurationError,
    FlowError,
    InstanceNotFoundError,
    StoreError,
    UnroutableError,
)
from coflows.futures import FlowFuture, FutureKey, Pause
from coflows.held_keys import open_keyring
from coflows.identity.keys import Identity
from coflows.key_news import has_begun
from coflows.model.address import InstanceAddress
from coflows.model.calls import Call
from coflows.model.chain import CallChain
from coflows.model.messages import FlowMessage, new_message_id
from coflows.proxy import FlowProxy
from coflows.session import Session
from coflows.store.base import ABSENT, Store

MAX_ENTRY = 64 * 2**20


class Client:
    """A user's session with his store and a broker. Thread-safe; two in one process do not know of each other.

    Make it with ``connect`` or ``start_users``. The broker is reached when it is first needed, and ``close`` ends
    workers that were started with this client, waits for nobody's reply, and lets go of broker and store.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        open_broker: Callable[[], Broker],
        settings: Settings,
        *,
        throwaway: bool = False,
        exit_stack: ExitStack | None = None,
    ) -> None:
        self.identity = identity
        self.store = store
        self.settings = settings
        self._open_broker = open_broker
        self._throwaway = throwaway
        self._broker: Broker | None = None
        self._session: Session | None = None
        self._declared: dict[str, QueueSpec] = {}
        self.keyring = open_keyring(identity, store)
        self._exit = exit_stack or ExitStack()
        self._exit.callback(store.close)
        self._lock = threading.RLock()
        self._started: set[str] = set()
        self._starting = threading.Lock()
        self._closed = False

    @property
    def user_id(self) -> str:
        """The user's id: his public key."""
        return self.identity.user_id

    def get_user_id(self) -> str:
        """The user's id: his public key."""
        return self.user_id

    # -- broker ------------------------------------------------------------------------------------------------

    @property
    def broker(self) -> Broker:
        """The broker, reached now if it was not yet; raises BrokerUnavailableError or BrokerAuthError."""
        with self._lock:
            if self._closed:
                raise ConfigurationError("This client is closed.", hint="Connect again.")
            if self._broker is None:
                broker = self._open_broker()
                try:
                    broker.declare(dead_letter_queue(self.user_id), door_queue(self.user_id))
                except BaseException:
                    broker.close()
                    raise
                self._broker = broker
                self._exit.callback(self._close_broker, broker)
            return self._broker

    @property
    def session(self) -> Session:
        """Seals, publishes and awaits replies."""
        if self._session is not None:
            return self._session
        with self._lock:
            if self._session is None:
                self.keyring.reread()
                self._session = Session(
                    self.identity,
                    self.broker,
                    keyring=self.keyring,
                    max_message_bytes=self.settings.max_message_bytes,
                    ttl=self.settings.call_ttl,
                    envelope_version=self.settings.envelope_version,
                    has_begun=partial(has_begun, self.store),
                )
                self._exit.callback(self._session.close)
            return self._session

    def declare(self, *queues: QueueSpec) -> None:
        """Make queues of this user's; a throw-away user deletes them when he closes."""
        self.broker.declare(*queues)
        self._declared.update((queue.name, queue) for queue in queues)

    def has_declared(self, queue: QueueSpec) -> bool:
        """Whether this session made it, so that it is there unless somebody deleted it since."""
        return queue.name in self._declared

    def on_close(self, closer: Callable[[], None]) -> None:
        """Call ``closer`` when the client closes, the last one first."""
        self._exit.callback(closer)

    def once(self, name: str, start: Callable[[], Callable[[], None]]) -> None:
        """Start something that goes on until the client closes, unless it was started under this name; ``start`` gives
        what stops it."""
        with self._starting:
            if name not in self._started:
                self._exit.callback(start())
                self._started.add(name)

    # -- entries of the store ----------------------------------------------------------------------------------

    def create_entry(self, key: str, value: Any) -> None:
        """Write a new key; StoreError when it exists. Values are what msgpack holds: str, bytes, numbers, lists..."""
        try:
            self.store.commit({key: encode(value)}, conditions={key: ABSENT})
        except StoreError as error:
            if error.code == "conflict":
                raise StoreError(f"Entry {key!r} exists already.", hint="Use update_entry to change it.") from error
            raise

    def read_entry(self, key: str) -> Any:
        """The value, or None when there is no such key."""
        entry = self.store.get(key)
        return None if entry is None else decode(entry.value, max_bytes=MAX_ENTRY)

    def update_entry(self, key: str, value: Any) -> None:
        """Write a key, new or not."""
        self.store.commit({key: encode(value)})

    def delete_entry(self, key: str) -> None:
        """Delete a key; nothing happens when there is none."""
        self.store.commit(deletes=[key])

    def read_keys(self, prefix: str = "") -> list[str]:
        """All keys under ``prefix``, in order."""
        return self.store.keys(prefix)

    def read_or_wait(self, key: str, timeout: float | None = None) -> Any:
        """The value, waiting up to ``timeout`` seconds (None: for ever) until there is one; CallTimeoutError."""
        changed = threading.Event()
        watch = self.store.watch(key, lambda _keys: changed.set())
        try:
            while (entry := self.store.get(key)) is None:
                if not changed.wait(timeout):
                    raise CallTimeoutError(f"No entry {key!r} within {timeout} s.")
                changed.clear()
            return decode(entry.value, max_bytes=MAX_ENTRY)
        finally:
            watch.close()

    # -- messages ----------------------------------------------------------------------------------------------

    def proxy(self, address: InstanceAddress) -> FlowProxy:
        """An instance as this client's counterpart."""
        return FlowProxy(address, self)

    def new_message_id(self, data: dict[str, Any]) -> str:
        """A random id."""
        return new_message_id()

    def send(self, route: Route, message: FlowMessage) -> None:
        """Send; nobody waits for a reply. Durable when it returns."""
        address = route.address
        chain = self.chain_of(message)
        call = Call(address.flow_id, message.data, message.created_at, message.src_flow_id, chain=chain)
        sent = self.session.send(route.queue, address.user_id, message.message_id, call, ordered=route.ordered)
        try:
            sent.result()
        except UnroutableError as error:
            raise no_instance(address) from error

    def push(self, route: Route, message: FlowMessage) -> None:
        """Not for a client: a push reply needs an instance to go to."""
        raise FlowError(
            "get_reply() delivers the reply to the flow that asks; a client is no flow.",
            hint="Use get_reply_future(message) or ask(data) here.",
        )

    def call(
        self,
        route: Route,
        message: FlowMessage,
        *,
        confirm: bool,
        src_flow_id: str | None = None,
        pause: Pause = nullcontext,
        chain: list[Any] | None = None,
    ) -> FlowFuture:
        """Send, and give a future of the reply. With ``confirm``, the message is durable when this returns. ``chain``:
        that of the turn which sends it."""
        session = self.session
        address = route.address
        source = src_flow_id or message.src_flow_id
        chain = chain or self.chain_of(message)
        call = Call(address.flow_id, message.data, message.created_at, source, session.reply_to, chain=chain)
        published: Future[None] | None = Future() if confirm else None
        reply = session.call(route, message.message_id, call, no_instance, published)
        if published is not None:
            published.result()
        return FlowFuture(address, reply, session.cancel, pause)

    def chain_of(self, message: FlowMessage) -> list[Any] | None:
        """The chain of a call that this user begins: None unless the message sets it limits."""
        if message.deadline is None and message.budget is None:
            return None
        return CallChain(self.user_id, (), message.deadline, message.budget).to_list()

    def reopen_future(self, key: str) -> FlowFuture:
        """Wait again for the reply to a message that this user sent, perhaps from a process that is gone. Raises
        NameInvalidError for what is no key."""
        parsed = FutureKey.parse(key)
        reply = self.session.recall(route_to(parsed.address), parsed.message_id, no_instance)
        return FlowFuture(parsed.address, reply, None)

    # -- end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End what was started with this client and let go of broker and store. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._exit.close()

    def _close_broker(self, broker: Broker) -> None:
        if self._throwaway:
            own = (door_queue(self.user_id).name, dead_letter_queue(self.user_id).name)
            for queue in (*self._declared, *own):
                broker.delete(queue)
        broker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Client of user {self.user_id}>"


def no_instance(address: InstanceAddress) -> InstanceNotFoundError:
    """The error of a message that has no queue to go to."""
    return InstanceNotFoundError(
        f"There is no instance {address.flow_id} of {address.flow_endpoint} at user {address.user_id}: "
        f"his dispatch point {address.dispatch_point!r} is not on this broker.",
        hint="Was the endpoint deleted, or is the other user on another broker? Fetch the instance again.",
    )
