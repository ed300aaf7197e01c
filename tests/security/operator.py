"""A curious broker operator: keeps every sealed body that users publish, and publishes what and where he likes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from coflows import Client
from coflows.codec.wire import decode
from coflows.dead_letters import list_dead_letters
from coflows.identity.sealing import Opened

TIMEOUT = 30


class Operator:
    """Watches users of the embedded broker in this process. He sees queues and bodies; ``reads`` is what only the
    recipient could tell him, for the tests to find what they look for."""

    def __init__(self, *watched: Client) -> None:
        self.seen: list[tuple[str, bytes]] = []
        for cl in watched:
            self._watch(cl)

    def _watch(self, cl: Client) -> None:
        broker: Any = cl.broker
        publish = broker.publish_async

        def recorded(queue: str, body: bytes) -> Any:
            self.seen.append((queue, body))
            return publish(queue, body)

        broker.publish_async = recorded

    def sent(self, recipient: Client, kind: str) -> list[tuple[str, bytes, Opened, dict[str, Any]]]:
        """What was sent to him of this kind: queue, body, envelope, and the payload of its first message."""
        found = []
        for queue, body in list(self.seen):
            if f".{recipient.user_id}." in queue:
                opened = recipient.session.open(body)
                value = decode(opened.payload, max_bytes=2**24)
                if value["kind"] == kind:
                    found.append((queue, body, opened, value))
        return found

    @staticmethod
    def inject(cl: Client, bodies: Iterable[tuple[str, bytes]]) -> None:
        """Publish, as whoever."""
        for queue, body in bodies:
            cl.broker.publish(queue, body)


def letters(cl: Client, count: int) -> list[str]:
    """The reasons of the dead letters, once there are so many."""
    deadline = time.monotonic() + TIMEOUT
    while len(found := list_dead_letters(cl)) < count:
        assert time.monotonic() < deadline, found
    return [letter.reason for letter in found]
