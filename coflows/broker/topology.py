"""Every queue name and its properties, derived in this one place."""

from __future__ import annotations

from typing import NamedTuple

from coflows.broker.base import QueueSpec
from coflows.model.address import InstanceAddress
from coflows.model.messages import ReplyAddress, ReplyMode

SESSION_EXPIRES = 600.0
"""Seconds that a session's queue outlives the session's last connection."""


def dead_letter_queue(user_id: str) -> QueueSpec:
    """Where a user's rejected messages wait to be looked at."""
    return QueueSpec(f"coflows.{user_id}.dead")


def door_queue(user_id: str) -> QueueSpec:
    """A user's get_instance requests. That it exists is what makes the user known on a broker."""
    return QueueSpec(f"coflows.{user_id}.get_instance", dead_letter_queue=dead_letter_queue(user_id).name)


def session_queue(user_id: str, session: str) -> QueueSpec:
    """The replies to one session."""
    return QueueSpec(f"coflows.{user_id}.session.{session}", expires=SESSION_EXPIRES)


def dispatch_queue(user_id: str, dispatch_point: str, partition: int | None) -> QueueSpec:
    """The messages of one partition of a dispatch point; of its parallel endpoints when ``partition`` is None."""
    return QueueSpec(
        f"coflows.{user_id}.dispatch.{dispatch_point}.{'parallel' if partition is None else partition}",
        single_active=partition is not None,
        dead_letter_queue=dead_letter_queue(user_id).name,
    )


def dispatch_queues(user_id: str, dispatch_point: str, partitions: int) -> list[QueueSpec]:
    """All queues of a dispatch point."""
    return [dispatch_queue(user_id, dispatch_point, partition) for partition in (None, *range(partitions))]


class Route(NamedTuple):
    """The way to an instance: the queue that its messages go to, and what their order is kept within (the instance;
    None at a parallel endpoint)."""

    address: InstanceAddress
    queue: str
    ordered: str | None


def route_to(address: InstanceAddress) -> Route:
    """The way to an instance."""
    queue = dispatch_queue(address.user_id, address.dispatch_point, address.partition).name
    return Route(address, queue, None if address.partition is None else address.flow_id)


def reply_queue(address: ReplyAddress) -> str:
    """The queue that a reply goes to; not for NO_REPLY."""
    if address.mode is ReplyMode.STORAGE and address.session:
        return session_queue(address.user_id, address.session).name
    assert address.dispatch_point is not None
    return dispatch_queue(address.user_id, address.dispatch_point, address.partition).name
