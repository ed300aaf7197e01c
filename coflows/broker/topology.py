"""Every queue name and its properties, derived in this one place."""

from __future__ import annotations

import re
from typing import NamedTuple

from coflows.broker.base import QueueSpec
from coflows.model.address import InstanceAddress
from coflows.model.messages import ReplyAddress, ReplyMode
from coflows.model.names import USER_ID_LENGTH

ACCOUNTS = "coflows.accounts"
"""The exchange by which everybody sees that users have accounts on this RabbitMQ; nothing goes through it."""

SESSION_EXPIRES = 600.0
"""Seconds that a session's queue outlives the session's last connection."""

_OWNED = re.compile(rf"coflows\.([a-z2-7]{{{USER_ID_LENGTH}}})\.")


def own_queues(user_id: str) -> str:
    """What the names of all queues of a user begin with."""
    return f"coflows.{user_id}."


def door_exchange(user_id: str) -> str:
    """Where users have accounts on RabbitMQ: the exchange through which others' messages come to a user's queues."""
    return f"coflows.in.{user_id}"


def owner_of(queue: str) -> str | None:
    """The user whose queue it is by its name; None for a name that is not made here."""
    owned = _OWNED.match(queue)
    return owned[1] if owned else None


def dead_letter_queue(user_id: str) -> QueueSpec:
    """Where a user's rejected messages wait to be looked at."""
    return QueueSpec(f"coflows.{user_id}.dead", private=True)


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
