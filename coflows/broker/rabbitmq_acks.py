"""Acknowledgements of one RabbitMQ channel: those of the same moment leave together, and a prefix of them as one."""

from __future__ import annotations

from typing import Any

from coflows.broker.rabbitmq_link import Link

MOMENT = 0.01
"""Seconds that an acknowledgement may wait for others: nobody waits for it."""
MOST = 64


class Acks:
    """For the I/O thread. ``prefetch``: how many messages the channel has at a time; few of them do not wait, for the
    next message does."""

    def __init__(self, link: Link, channel: Any, prefetch: int) -> None:
        self.channel = channel
        self._link = link
        self._limit = max(1, min(MOST, prefetch // 8))
        self._pending: list[int] = []
        self._due = False
        self._passed = 0
        """Up to this tag all are settled."""
        self._ahead: set[int] = set()
        """Settled tags above it."""

    def ack(self, tag: int) -> None:
        """Acknowledge a message of the channel."""
        self._pending.append(tag)
        self.settled(tag)
        if len(self._pending) >= self._limit:
            self.flush()
        elif not self._due:
            self._due = True
            self._link.call_later(MOMENT, self._moment_over)

    def settled(self, tag: int) -> None:
        """A message was settled in another way, or is about to be acknowledged."""
        self._ahead.add(tag)
        while self._passed + 1 in self._ahead:
            self._passed += 1
            self._ahead.remove(self._passed)

    def flush(self) -> None:
        """Send what has gathered; nothing when the channel is gone, and its messages with it."""
        pending, self._pending = self._pending, []
        if not pending or not self.channel.is_open:
            return
        together = [tag for tag in pending if tag <= self._passed]
        if together:
            # The server knows a tag only until it is settled: the last of these, not the last of all that are.
            self.channel.basic_ack(max(together), multiple=len(together) > 1)
        for tag in pending:
            if tag > self._passed:
                self.channel.basic_ack(tag)

    def _moment_over(self) -> None:
        self._due = False
        self.flush()
