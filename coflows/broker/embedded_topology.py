"""What a process knows of the embedded broker's file: queues, who consumes them, and messages it has taken."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Claim:
    """A message that a consumer has taken."""

    id: int
    body: bytes
    redelivered: bool
    origin: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A consumer in the line of its queue."""

    id: int
    queue: int
    session: str


@dataclass(slots=True)
class Topology:
    """Queues and their consumers, as of one version."""

    version: int = 0
    queues: dict[str, int] = field(default_factory=dict)
    """Ids by name, of those that were looked for."""
    lines: dict[int, list[Subscriber]] = field(default_factory=dict)
    """By the queue's id: its consumers, the first one first."""
    single_active: set[int] = field(default_factory=set)

    def sessions(self, queue: int) -> list[str]:
        """Who is to be woken for a message of the queue."""
        line = self.lines.get(queue, [])
        return [line[0].session] if queue in self.single_active else [one.session for one in line]

    def queue_of(self, consumer: int) -> int | None:
        """The queue that a consumer may take messages of, if it is there and the consumer's turn."""
        for queue, line in self.lines.items():
            for one in line[:1] if queue in self.single_active else line:
                if one.id == consumer:
                    return queue
        return None

    def is_alone(self, queue: int) -> bool:
        """Whether only one consumer may take messages of it."""
        return queue in self.single_active or len(self.lines.get(queue, ())) == 1

    def all_sessions(self) -> set[str]:
        """Everybody who consumes."""
        return {one.session for line in self.lines.values() for one in line}
