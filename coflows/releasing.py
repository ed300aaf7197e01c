"""Deletes instances, and gives back the subflows that they hold at other users."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from coflows.broker.topology import door_queue
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.endpoints import find_endpoint
from coflows.errors import CallTimeoutError, InstanceNotFoundError, UnknownUserError
from coflows.instances import find_instance, instance_keys, tombstones
from coflows.marks import Marks
from coflows.model.address import InstanceAddress
from coflows.model.failure import Failure
from coflows.model.layout import released_key
from coflows.model.messages import new_message_id
from coflows.model.names import LOCAL
from coflows.model.wire import MAX_TREE, Release
from coflows.waiting import PendingReply

logger = logging.getLogger(__name__)


def remove_instance(cl: Client, flow_id: str) -> tuple[InstanceAddress, ...]:
    """Delete an instance of this user's: its mount, metadata and records. Messages that are still on their way to it
    are answered with InstanceNotFoundError. Gives the addresses of its subflows, which stay. Raises
    InstanceNotFoundError."""
    instance = find_instance(cl.store, flow_id)
    if instance is None:
        raise InstanceNotFoundError(
            f"User {cl.user_id} has no instance {flow_id}.", hint="`coflows instances` lists them."
        )
    cl.store.commit(tombstones(instance), instance_keys(cl.store, instance))
    return tuple(instance.subflows.values())


def release_trees(
    cl: Client, flow_ids: Iterable[str], client: str, *, until: float | None = None, final: bool = True
) -> list[PendingReply]:
    """Delete instances that ``client`` mounted and all their subflows, here in one commit. Leaves alone what is not
    there, belongs to another client, or is a singleton (it belongs to its endpoint, and others may hold it). With
    ``final`` the requests that mounted them, valid ``until`` then, mount them no more. Gives the replies to come of the
    other users who were asked to release theirs, each asked once."""
    return _release(cl, [(flow_id, client) for flow_id in flow_ids], [], until, final)


def release_addresses(cl: Client, addresses: Iterable[InstanceAddress]) -> list[PendingReply]:
    """Like ``release_trees``, of instances that this user mounted, here and at other users."""
    own, others = _by_owner(cl, addresses)
    return _release(cl, own, others)


def _release(
    cl: Client,
    level: list[tuple[str, str]],
    others: list[InstanceAddress],
    until: float | None = None,
    final: bool = True,
) -> list[PendingReply]:
    """``level`` are instances here and who mounted them, ``others`` those at other users."""
    deletes: dict[str, None] = {}
    writes: dict[str, bytes] = {}
    done: set[tuple[str, str]] = set()
    singletons: dict[str, bool] = {}
    while level:
        below: list[tuple[str, str]] = []
        for flow_id, client in level:
            instance = find_instance(cl.store, flow_id)
            if instance is None or instance.path.client != client or (flow_id, client) in done:
                continue
            done.add((flow_id, client))
            name = instance.path.endpoint
            if name not in singletons:
                endpoint = find_endpoint(cl.store, name)
                singletons[name] = endpoint is not None and endpoint.singleton
            if not singletons[name]:
                deletes |= dict.fromkeys(instance_keys(cl.store, instance))
                writes |= tombstones(instance, until) if final else {}
                own, more = _by_owner(cl, instance.subflows.values())
                below += own
                others += more
        level = below
    if deletes:
        cl.store.commit(writes, deletes)
    return _ask_owners(cl, others)


def _by_owner(cl: Client, addresses: Iterable[InstanceAddress]) -> tuple[list[tuple[str, str]], list[InstanceAddress]]:
    own: list[tuple[str, str]] = []
    others: list[InstanceAddress] = []
    for address in addresses:
        if address.user_id == cl.user_id:
            own.append((address.flow_id, LOCAL))
        else:
            others.append(address)
    return own, others


def _ask_owners(cl: Client, addresses: Iterable[InstanceAddress]) -> list[PendingReply]:
    ids: dict[str, dict[str, None]] = {}
    for address in addresses:
        ids.setdefault(address.user_id, {})[address.flow_id] = None
    return [
        ask_release(cl, user_id, wanted[first : first + MAX_TREE])
        for user_id, wanted in ((user_id, list(found)) for user_id, found in ids.items())
        for first in range(0, len(wanted), MAX_TREE)
    ]


def ask_release(cl: Client, user_id: str, flow_ids: list[str], withdrawn: str | None = None) -> PendingReply:
    """Ask another user to delete instances that he mounted for us, and (``withdrawn``, a fetch's request id) to refuse
    to mount what that request still asks for."""
    release = Release(request_id=new_message_id(), session=cl.session.id, flow_ids=flow_ids, withdrawn=withdrawn)
    unknown = UnknownUserError(f"There is no user {user_id} on this broker.")
    return cl.session.request(door_queue(user_id).name, user_id, release.request_id, release, unroutable=unknown)


def handle_release(cl: Client, sender: str, release: Release, until: int, marks: Marks) -> list[PendingReply]:
    """Do what another user asks; only to instances that he mounted. ``until`` is how long what he asks is valid, and
    so, about, how long a request was that he made before."""
    may_mark = sender == cl.user_id or marks.may_leave(sender, 1 if release.withdrawn else len(release.flow_ids))
    if release.withdrawn is None:
        return release_trees(cl, release.flow_ids, sender, until=until, final=may_mark)
    if may_mark:
        cl.store.commit({released_key(sender, release.withdrawn): encode({"at": time.time(), "until": until})})
    return release_trees(cl, release.flow_ids, sender, final=False)  # The request mounts nothing more anyway.


def await_releases(replies: list[PendingReply], timeout: float) -> None:
    """Wait until the other users have released theirs; CallTimeoutError when one does not answer in time."""
    deadline = time.time() + timeout
    for reply in replies:
        try:
            answer = reply.result(max(0.0, deadline - time.time()))
        except TimeoutError as error:
            raise CallTimeoutError(
                f"Not all owners answered within {timeout} s; what they hold is released when they are back.",
                hint="Is a get_instance worker of each owner running?",
            ) from error
        if answer.failure is not None:
            raise Failure.from_dict(answer.failure).to_error("The owner of a subflow")
