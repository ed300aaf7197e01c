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
from coflows.instances import find_instance, instance_keys
from coflows.model.address import InstanceAddress
from coflows.model.failure import Failure
from coflows.model.layout import released_key
from coflows.model.messages import new_message_id
from coflows.model.names import LOCAL
from coflows.model.wire import Release
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
    cl.store.commit(deletes=instance_keys(cl.store, instance.path))
    return tuple(instance.subflows.values())


def release_tree(cl: Client, flow_id: str, client: str) -> list[PendingReply]:
    """Delete an instance that ``client`` mounted and all its subflows. Leaves alone what is not there, belongs to
    another client, or is a singleton (it belongs to its endpoint, and others may hold it). Gives the replies to
    come of the other users who were asked to release theirs."""
    instance = find_instance(cl.store, flow_id)
    if instance is None or instance.path.client != client:
        return []
    endpoint = find_endpoint(cl.store, instance.path.endpoint)
    if endpoint is not None and endpoint.singleton:
        return []
    cl.store.commit(deletes=instance_keys(cl.store, instance.path))
    return release_addresses(cl, instance.subflows.values())


def release_addresses(cl: Client, addresses: Iterable[InstanceAddress]) -> list[PendingReply]:
    """Release instances, here and at other users, each user asked once."""
    remote: dict[str, list[str]] = {}
    replies: list[PendingReply] = []
    for address in addresses:
        if address.user_id == cl.user_id:
            replies += release_tree(cl, address.flow_id, LOCAL)
        else:
            remote.setdefault(address.user_id, []).append(address.flow_id)
    for user_id, flow_ids in remote.items():
        replies.append(ask_release(cl, user_id, list(dict.fromkeys(flow_ids))))
    return replies


def ask_release(cl: Client, user_id: str, flow_ids: list[str], withdrawn: str | None = None) -> PendingReply:
    """Ask another user to delete instances that he mounted for us, and (``withdrawn``, a fetch's request id) to refuse
    to mount what that request still asks for."""
    release = Release(request_id=new_message_id(), session=cl.session.id, flow_ids=flow_ids, withdrawn=withdrawn)
    unknown = UnknownUserError(f"There is no user {user_id} on this broker.")
    return cl.session.request(door_queue(user_id).name, user_id, release.request_id, release, unroutable=unknown)


def handle_release(cl: Client, sender: str, release: Release) -> list[PendingReply]:
    """Do what another user asks; only to instances that he mounted."""
    if release.withdrawn is not None:
        cl.store.commit({released_key(sender, release.withdrawn): encode({"at": time.time()})})
    return [reply for flow_id in release.flow_ids for reply in release_tree(cl, flow_id, sender)]


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
