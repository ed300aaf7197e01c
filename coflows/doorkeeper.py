"""A get_instance worker: answers other users who fetch instances of this user's flows, or give them back."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue

from pydantic import TypeAdapter

from coflows.broker.base import Delivery
from coflows.broker.topology import door_queue, session_queue
from coflows.client import Client
from coflows.errors import CoflowsError, FlowInstanceError, QuotaExceededError, UnroutableError
from coflows.failpoints import Failpoints
from coflows.fair_pool import FairPool
from coflows.flows.overrides import check_overrides
from coflows.identity.certificate import Certificate
from coflows.keeping import handle_keep, sweep
from coflows.marks import Marks
from coflows.model.calls import Reply
from coflows.model.failure import Failure
from coflows.model.layout import released_key
from coflows.model.messages import new_message_id
from coflows.model.wire import DoorPayload, Fetch, FetchItem, Hello, Keep, Release, read_payload
from coflows.mounting import Mounter
from coflows.opened import Opened
from coflows.parcel import Parcel
from coflows.quotas.accounts import Accounts, Excess
from coflows.releasing import handle_release
from coflows.resolution import MountRequest, check_vouched, derive_id, describe, patience
from coflows.room import Room
from coflows.session import Incoming
from coflows.tree import named

logger = logging.getLogger(__name__)

REQUESTS = 64
"""Requests of one user that are worked on or wait for it: others' find threads."""
FETCH_BYTES = 128 * 2**10
"""Bytes for which one request for instances counts, besides its own: as much work as a message of that size."""
PREFETCH = 256
"""Requests worked off at once. One that waits for another user's answer keeps its thread, so that flows of two users
that need each other's can be fetched with one worker each."""

ROOM, SMALL_REQUEST = 16 * 2**20, 32 * 2**10
"""Bytes that requests in hand may take in memory; of one that needs no room."""
SWEEP, KEEP_PAUSE = 5.0, 1.0
"""Seconds between two looks for what an unfinished fetch has left behind; before another try to keep something."""

Request = Fetch | Keep | Release | Hello


@dataclass(frozen=True)
class _Door:
    """The queue that requests come from. What an ended consumer has left is worked off, and comes again; that is
    harmless."""

    name: str
    era: int = 0
    full: bool = False


class Doorkeeper:
    """Runs from construction until ``stop``. Thread-safe."""

    def __init__(self, cl: Client, *, base_paths: Sequence[Path] = ()) -> None:
        self._cl = cl
        self._mounter = Mounter(cl, (*base_paths, *cl.settings.flow_modules))
        self._failpoints = Failpoints(cl.settings.failpoints)
        self._payloads: TypeAdapter[Fetch | Keep | Release | Hello] = TypeAdapter(DoorPayload)
        messages = cl.settings.quota.messages
        self._quota = cl.settings.quota.with_limits({"messages": min(messages or REQUESTS, REQUESTS)})
        self._accounts = Accounts()
        self._marks = Marks(cl.store)
        self._room = Room(ROOM, SMALL_REQUEST)
        self._threads = FairPool(f"coflows-door-{cl.user_id[:8]}", PREFETCH)
        _ = cl.session
        self._came: SimpleQueue[Delivery | None] = SimpleQueue()
        self._ending = threading.Event()
        self._consumer = cl.broker.consume(door_queue(cl.user_id).name, self._came.put, prefetch=PREFETCH)
        threading.Thread(target=self._receive, name="coflows-door-read", daemon=True).start()
        threading.Thread(target=self._sweep, name="coflows-door-sweep", daemon=True).start()

    def stop(self) -> None:
        """Take no more requests; those in hand are given back unless they are done. Idempotent."""
        self._ending.set()
        self._consumer.close()
        self._came.put(None)

    def _receive(self) -> None:
        """Read what comes, in turn for all who ask; in a thread of its own, for what asks much takes long to read."""
        opened: Opened[_Door, Request] = Opened(self._cl.session, self._request_of)
        door = _Door(door_queue(self._cl.user_id).name)
        while not self._ending.is_set():
            while not opened.full and (not opened.goes_on or not self._came.empty()):
                delivery = self._came.get()
                if delivery is None or self._ending.is_set():
                    return
                opened.add(delivery, door)
            self._receive_next(opened)  # While this thread waits it holds nothing that it has read.

    def _receive_next(self, opened: Opened[_Door, Request]) -> None:
        for piece, messages in opened.next():
            for incoming, request in messages:
                self._receive_one(piece.parcel, incoming, request)

    def _receive_one(self, parcel: Parcel, incoming: Incoming, request: Request) -> None:
        try:
            refusal = self._admit(incoming, request)
            if refusal is None:
                self._threads.submit(incoming.sender, partial(self._work, parcel, incoming, request))
            elif not isinstance(request, Keep | Hello):
                self._cl.session.refusals.count(refusal)
                answer = Reply(answers=request.request_id, failure=Failure.of(refusal).to_dict())
                self._reply(parcel, incoming.sender, request, answer)
        except Exception:
            logger.exception("A request of user %s could not be received; it comes again.", incoming.sender)
            parcel.settle(again=True)

    def _request_of(self, incoming: Incoming) -> Request:
        return read_payload(self._payloads, incoming.value)

    def _admit(self, incoming: Incoming, request: Request) -> CoflowsError | None:
        """Why the sender may not ask for more now; what gives something back is always let in, and what is to be kept
        is a list of bounded length."""
        giving = not isinstance(request, Fetch)
        if incoming.sender != self._cl.user_id:
            now, size = time.monotonic(), len(incoming.data) + (0 if giving else FETCH_BYTES)
            with self._accounts.lock:
                excess = self._accounts.get(incoming.sender, self._quota, now).admit(size, now, always=giving)
            if excess is not None:
                return _refused(excess)
        if isinstance(request, Keep | Hello) or self._room.take(incoming.weight):
            return None
        self._leave(incoming.sender)
        return FlowInstanceError("The owner's worker has too much in hand.", hint="Try again in a moment.")

    def _leave(self, sender: str) -> None:
        if sender != self._cl.user_id:
            self._accounts.leave([self._accounts.get(sender, self._quota, time.monotonic())])

    def _work(self, parcel: Parcel, incoming: Incoming, request: Request) -> None:
        try:
            if isinstance(request, Hello):
                self._hear(parcel, incoming.sender, request)
            elif isinstance(request, Keep):
                self._keep(parcel, incoming.sender, request)
            else:
                self._work_off(parcel, incoming, request)
        finally:
            self._leave(incoming.sender)
            if isinstance(request, Fetch | Release):
                self._room.give(incoming.weight)

    def _work_off(self, parcel: Parcel, incoming: Incoming, request: Fetch | Release) -> None:
        try:
            if isinstance(request, Fetch):
                answer = self._fetch(incoming.sender, request)
            else:
                handle_release(self._cl, incoming.sender, request, incoming.until, self._marks)
                answer = Reply(answers=request.request_id, value={})
        except CoflowsError as error:
            logger.info("Refused a request of user %s: %s", incoming.sender, error)
            self._cl.session.refusals.count(error)
            answer = Reply(answers=request.request_id, failure=Failure.of(error).to_dict())
        except Exception as error:
            logger.exception("A request of user %s failed.", incoming.sender)
            text = f"The owner's worker failed: {type(error).__name__}."
            failure = Failure("flow_instance", "FlowInstanceError", text)
            answer = Reply(answers=request.request_id, failure=failure.to_dict())
        self._reply(parcel, incoming.sender, request, answer)

    def _reply(self, parcel: Parcel, sender: str, request: Fetch | Release, answer: Reply) -> None:
        queue = session_queue(sender, request.session).name

        def confirmed(future: Future[None]) -> None:
            error = future.exception()
            self._failpoints.reach("after_answer")
            parcel.settle(again=error is not None and not isinstance(error, UnroutableError))

        self._cl.session.send(queue, sender, new_message_id(), answer).add_done_callback(confirmed)

    def _hear(self, parcel: Parcel, sender: str, hello: Hello) -> None:
        try:
            certificate = Certificate.read(hello.certificate)
            if certificate.user_id == sender:
                self._cl.keyring.learn(certificate)
        except CoflowsError as error:
            logger.info("User %s has shown no certificate: %s", sender, error)
        parcel.settle()

    def _keep(self, parcel: Parcel, sender: str, request: Keep) -> None:
        try:
            handle_keep(self._cl, sender, request.flow_ids, self._failpoints)
        except CoflowsError as error:
            logger.warning("Could not keep what user %s has fetched; trying again: %s", sender, error)
            self._ending.wait(KEEP_PAUSE)
            parcel.settle(again=True)
        else:
            parcel.settle()

    def _sweep(self) -> None:
        place: str | None = None
        while not self._ending.wait(SWEEP):
            self._accounts.sweep(time.monotonic())
            try:
                place = sweep(self._cl, time.time(), self._failpoints, place)
            except (CoflowsError, TimeoutError) as error:
                if not self._ending.is_set():
                    logger.warning("Could not look for what was left behind; trying again: %s", error)

    def _fetch(self, sender: str, fetch: Fetch) -> Reply:
        logger.info("~~~ serving get_instances request ~~~")
        logger.info("request_id = %s", fetch.request_id)
        logger.info("get_instance_calls: %s", [(item.key, item.flow_endpoint) for item in fetch.items])
        now = time.time()
        if now > fetch.deadline:
            raise FlowInstanceError("The request came after its deadline.", hint="Try again.")
        if len({item.key for item in fetch.items}) < len(fetch.items):
            raise FlowInstanceError("The request asks for one key twice.", hint="Give each subflow a key of its own.")
        check_vouched(fetch.chain, fetch.root, sender)
        deadline = patience(fetch.deadline, now)
        mounted = self._mounter.mount([self._request(sender, fetch, item, deadline) for item in fetch.items])
        instances = {item.key: one.to_dict() for item, one in zip(fetch.items, mounted, strict=True)}
        return Reply(answers=fetch.request_id, value={"instances": instances})

    def _request(self, sender: str, fetch: Fetch, item: FetchItem, deadline: float) -> MountRequest:
        # Which of several items an error is about, only this side knows.
        steps = () if len(fetch.items) == 1 else (describe(item.key, item.flow_endpoint, self._cl.user_id),)
        with named(steps):
            check_overrides(item.config_overrides)
        return MountRequest(
            endpoint=item.flow_endpoint,
            client=sender,
            request_id=derive_id(fetch.request_id, item.key),
            deadline=deadline,
            config_overrides=item.config_overrides,
            initial_state=item.initial_state,
            dispatch_point_override=item.dispatch_point_override,
            chain=tuple(fetch.chain),
            withdrawal=released_key(sender, fetch.request_id),
            steps=steps,
            keep_by=fetch.keep_by,
            grant=fetch.grants.get(item.key),
            root=fetch.root,
            for_user=None if sender == self._cl.user_id else sender,
        )


def _refused(excess: Excess) -> QuotaExceededError:
    return QuotaExceededError(
        f"You ask this user for more at a time than he gives one user ({excess.limit}).",
        hint=f"Ask again in {excess.retry_after:.1f} s (error.retry_after).",
        retry_after=excess.retry_after,
    )
