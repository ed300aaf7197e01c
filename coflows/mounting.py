"""Mounts instances of served flows, after fetching their subflows from whoever serves them."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coflows.broker.topology import door_queue
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.errors import (
    CallTimeoutError,
    ConflictError,
    FlowInstanceError,
    InstanceNotFoundError,
    QuotaExceededError,
    UnknownUserError,
)
from coflows.failpoints import Failpoints
from coflows.flows.loading import FlowClasses
from coflows.identity.sealing import SINGLE
from coflows.keeping import Probation, tell_kept
from coflows.model.calls import Reply
from coflows.model.failure import Failure
from coflows.model.flow_names import FlowName
from coflows.model.layout import fetched_key, keeping_key
from coflows.model.names import LOCAL
from coflows.model.wire import ChainLink, Fetch, FetchItem, as_mapping
from coflows.registry.choosing import Candidate
from coflows.registry.lookup import Lookup
from coflows.releasing import ask_release
from coflows.resolution import MountRequest, derive_id, describe, fetch_items, flow_id_of, next_deadline
from coflows.tree import Tree, named
from coflows.tree_node import Mounted, Node
from coflows.usage import Usage
from coflows.waiting import PendingReply

logger = logging.getLogger(__name__)

MAX_TRIES = 100
SLOW_ANSWER = 15.0
"""Seconds after which who waits for another user's answer is told so."""
WORKING = 2
"""Requests that are looked up or written at the same time; those that wait for other users do not count. More threads
would only get into each other's way, and into that of turns in the same process."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request on its way to another user, for subflows of one node."""

    node: Node
    user_id: str
    request_id: str
    items: list[FetchItem]
    reply: PendingReply
    ask: Callable[[], PendingReply]
    """Asks again."""


class Mounter:
    """Mounts on behalf of one user. Thread-safe; blocks while other users answer."""

    def __init__(self, cl: Client, base_paths: Sequence[Path] = ()) -> None:
        self._cl = cl
        self._failpoints = Failpoints(cl.settings.failpoints)
        self._classes = FlowClasses(tuple(base_paths) or cl.settings.flow_modules)
        self._usage = Usage(cl.store, cl.settings.quota)
        self._working = threading.BoundedSemaphore(WORKING)

    def mount(self, requests: Sequence[MountRequest]) -> list[Mounted]:
        """Mount, or find the instances that these requests (or, of a singleton, anybody's) mounted before; all in one
        commit.

        Raises EndpointNotFoundError, FlowClassError, FlowConfigError, FlowCycleError, FlowInstanceError (names the
        chain of subflows, also when registries do not tell whose one is), InstanceNotFoundError when a request was
        taken back meanwhile. After an error nothing of the trees stays mounted.
        """
        lookup = Lookup(self._cl.settings.registries, trusted=self._cl.settings.trusted)
        for _ in range(MAX_TRIES):
            with self._working:
                tree = Tree(self._cl, self._classes, partial(self._find, lookup), requests)
            mounted = self._try(tree, lookup)
            if mounted is not None:
                return mounted
        name = requests[0].endpoint
        raise FlowInstanceError(f"Endpoint {name!r} kept changing while it was mounted.", hint="Try again.")

    def fetch(
        self,
        user_id: str,
        request_id: str,
        item: FetchItem,
        deadline: float,
        keep_by: float,
        grant: str | None = None,
    ) -> Mounted:
        """Fetch one instance from another user, by his ``grant`` if need be, and write down that it is this user's.
        Raises what his mount raised, UnknownUserError, or CallTimeoutError when he does not answer by the deadline;
        then it is taken back."""
        mounted = self._fetch(user_id, request_id, item, deadline, keep_by, grant)
        flow_id = mounted.address.flow_id
        writes = {fetched_key(flow_id): encode(mounted.address.to_dict())}
        remote = {user_id: [flow_id]} if mounted.probation else {}
        if remote:
            writes[keeping_key(flow_id)] = Probation(LOCAL, None, remote).encode()
        self._failpoints.reach("before_mount")
        self._cl.store.commit(writes)
        self._failpoints.reach("after_mount")
        if remote:
            tell_kept(self._cl, flow_id, remote)
        return mounted

    def _fetch(
        self, user_id: str, request_id: str, item: FetchItem, deadline: float, keep_by: float, grant: str | None
    ) -> Mounted:
        grants = {} if grant is None else {item.key: grant}

        def ask() -> PendingReply:
            return self._ask(user_id, request_id, [item], (), deadline, keep_by, grants)

        reply = ask()
        self._failpoints.reach("fetch_sent")
        try:
            return self._answer(user_id, [item], reply, deadline, ask)[item.key]
        except BaseException:
            self._withdraw(user_id, request_id, [item])
            raise

    def _try(self, tree: Tree, lookup: Lookup) -> list[Mounted] | None:
        """Mount once; None when something changed meanwhile and it is to be decided anew."""
        asked: list[_Asked] = []
        try:
            self._fetch_subflows(tree, lookup, asked)
            mounted = tree.mounted()
            self._failpoints.reach("before_mount")
            with self._working:
                self._commit(tree)
        except ConflictError as error:
            if tree.is_twin(error.keys):  # They are mounted, with the same subflows.
                return None
            self._take_back(asked)
            withdrawn = {key for node in tree.nodes for key in node.request.withdrawals}
            if not withdrawn.isdisjoint(error.keys):
                raise InstanceNotFoundError(
                    "The request was taken back, or what it had mounted was deleted."
                ) from error
            return None
        except BaseException:
            self._take_back(asked)
            raise
        self._failpoints.reach("after_mount")
        for flow_id, probation in tree.probations().items():
            if probation.until is None:
                tell_kept(self._cl, flow_id, probation.remote)
        return mounted

    def _find(self, lookup: Lookup, name: FlowName) -> Candidate:
        """Ask registries, and let others work meanwhile."""
        self._working.release()
        try:
            return lookup.find(name)
        finally:
            self._working.acquire()

    def _commit(self, tree: Tree) -> None:
        """Write it, if those whose usage it counts as may have that much. Raises QuotaExceededError."""
        with ExitStack() as claims:
            for user_id, amounts in tree.usage().items():
                claims.enter_context(self._usage.claimed(user_id, amounts))
            tree.commit()

    # -- subflows of others ------------------------------------------------------------------------------------

    def _fetch_subflows(self, tree: Tree, lookup: Lookup, asked: list[_Asked]) -> None:
        """Ask all users at the same time, then wait for all. What was taken back cannot be asked for again, so the ids
        change with the tree's version."""
        for node in tree.nodes:
            request, now = node.request, time.time()
            for user_id, wanted in node.plan.remote.items():
                items = fetch_items(wanted)
                request_id = derive_id(request.request_id, tree.version, user_id)
                with named((*request.steps, describe(items[0].key, items[0].flow_endpoint, user_id))):
                    deadline = next_deadline(request.deadline, now)
                    grants = {key: spec.grant for key, spec in wanted.items() if spec.grant is not None}
                    ask = partial(
                        self._ask,
                        user_id,
                        request_id,
                        items,
                        node.chain,
                        deadline,
                        request.keep_by,
                        grants,
                        request.caller,
                    )
                    reply = ask()
                asked.append(_Asked(node, user_id, request_id, items, reply, ask))
        if asked:
            self._failpoints.reach("fetch_sent")
        for one in asked:
            request, first = one.node.request, one.items[0]
            with named((*request.steps, describe(first.key, first.flow_endpoint, one.user_id))):
                with lookup.explained(one.user_id, self._cl.broker.url):
                    one.node.subflows.update(self._answer(one.user_id, one.items, one.reply, request.deadline, one.ask))

    def _ask(
        self,
        user_id: str,
        request_id: str,
        items: list[FetchItem],
        chain: tuple[ChainLink, ...],
        deadline: float,
        keep_by: float | None,
        grants: dict[str, str],
        root: str | None = None,
    ) -> PendingReply:
        fetch = Fetch(
            request_id=request_id,
            session=self._cl.session.id,
            items=items,
            chain=list(chain),
            deadline=deadline,
            keep_by=keep_by,
            grants=grants,
            root=None if self._cl.settings.envelope_version == SINGLE else root,  # Not every peer knows it.
        )
        unknown = UnknownUserError(
            f"There is no user {user_id} on this broker ({self._cl.broker.url}).",
            hint="Compare with `coflows user show` there; a worker of his must have run on this broker once.",
        )
        return self._cl.session.request(door_queue(user_id).name, user_id, request_id, fetch, unroutable=unknown)

    def _answer(
        self,
        user_id: str,
        items: list[FetchItem],
        reply: PendingReply,
        deadline: float,
        ask: Callable[[], PendingReply],
    ) -> dict[str, Mounted]:
        """What he answers; he is asked again, which is the same request, when that helps before the deadline."""
        refusal: QuotaExceededError | None = None
        while True:
            try:
                return self._answered(user_id, items, reply, deadline)
            except CallTimeoutError:
                if refusal is not None:  # He is there, and has said why not.
                    raise refusal from None
                raise
            except QuotaExceededError as error:
                refusal = error
                pause = None if error.retry_after is None else error.retry_after * random.uniform(1.0, 1.5)
                if pause is None or time.time() + pause > deadline:
                    raise
                logger.info("User %s is asked again in %.1f s: %s", user_id, pause, error)
                time.sleep(pause)
                reply = ask()

    def _answered(
        self, user_id: str, items: list[FetchItem], reply: PendingReply, deadline: float
    ) -> dict[str, Mounted]:
        try:
            answer = self._awaited(user_id, items, reply, max(deadline - time.time(), 0.0))
        except TimeoutError as error:
            raise CallTimeoutError(
                f"User {user_id} did not answer in time.",
                hint="Is a get_instance worker of his running (coflows worker all)? It can be asked again at any time.",
            ) from error
        if answer.failure is not None:
            raise Failure.from_dict(answer.failure).to_error(f"User {user_id}")
        instances = as_mapping(as_mapping(answer.value).get("instances"))
        return {
            item.key: Mounted.from_dict(as_mapping(instances.get(item.key)), user_id, item.flow_endpoint)
            for item in items
        }

    @staticmethod
    def _awaited(user_id: str, items: list[FetchItem], reply: PendingReply, timeout: float) -> Reply:
        """The reply; who waits for long is told for whom. Raises TimeoutError."""
        try:
            return reply.result(min(timeout, SLOW_ANSWER))
        except TimeoutError:
            if reply.done() or timeout <= SLOW_ANSWER:
                return reply.result(0.0)
        names = ", ".join(item.flow_endpoint for item in items)
        logger.warning(
            "User %s has not answered a request for %s in %.0f s; still waiting. Is a get_instance worker of his "
            "running (coflows worker all)?",
            user_id,
            names,
            SLOW_ANSWER,
        )
        return reply.result(timeout - SLOW_ANSWER)

    # -- taking back -------------------------------------------------------------------------------------------

    def _take_back(self, asked: Sequence[_Asked]) -> None:
        for one in asked:
            self._withdraw(one.user_id, one.request_id, one.items)

    def _withdraw(self, user_id: str, request_id: str, items: list[FetchItem]) -> None:
        """Tell the owner that nobody wants these; what he mounts for the request later is refused."""
        ids = [flow_id_of(derive_id(request_id, item.key), self._cl.user_id, item.flow_endpoint) for item in items]
        ask_release(self._cl, user_id, ids, withdrawn=request_id)
