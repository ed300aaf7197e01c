"""A user's dead letters: messages that could not be worked off, to be looked at, replayed or discarded."""

from __future__ import annotations

from dataclasses import dataclass

from coflows.broker.base import Delivery
from coflows.broker.topology import dead_letter_queue
from coflows.client import Client


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was rejected from ``queue`` for ``reason``; ``size`` in bytes of the sealed message."""

    queue: str
    reason: str
    size: int


def list_dead_letters(cl: Client) -> list[DeadLetter]:
    """All dead letters of the user, the oldest first; they stay."""
    deliveries = _take_all(cl)
    letters = [_letter(delivery) for delivery in deliveries]
    for delivery in deliveries:
        delivery.requeue()
    return letters


def replay_dead_letters(cl: Client) -> list[DeadLetter]:
    """Send every dead letter to the queue it came from, and give what was sent. What was worked off in the meantime is
    not worked off again."""
    replayed = []
    for delivery in _take_all(cl):
        if delivery.origin is None:
            delivery.requeue()
            continue
        cl.broker.publish(delivery.origin, delivery.body)
        delivery.ack()
        replayed.append(_letter(delivery))
    return replayed


def _take_all(cl: Client) -> list[Delivery]:
    queue, taken = dead_letter_queue(cl.user_id).name, []
    while (delivery := cl.broker.get(queue)) is not None:
        taken.append(delivery)
    return taken


def _letter(delivery: Delivery) -> DeadLetter:
    return DeadLetter(delivery.origin or "", delivery.reason or "", len(delivery.body))
