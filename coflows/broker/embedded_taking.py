"""Which messages the consumers of one embedded broker object take from its file."""

from __future__ import annotations

from collections.abc import Callable

from coflows.broker.embedded_consumer import EmbeddedConsumer
from coflows.broker.embedded_file import BrokerFile
from coflows.broker.embedded_topology import Claim

SHARE = 16
"""Messages that a consumer takes at a time while others consume the same queue."""
RESERVE = 1000
"""How far ahead of the newest message a consumer that is alone with its queue reserves. What is reserved when its
process dies counts as delivered before."""
Taken = list[tuple[EmbeddedConsumer, Claim]]


class Taking:
    """Used by who holds the broker's turn. What was taken is in nobody's hands until ``EmbeddedConsumer.take``."""

    def __init__(self, file: BrokerFile) -> None:
        self.consumers: list[EmbeddedConsumer] = []
        self._by_queue: dict[int, list[EmbeddedConsumer]] = {}
        self._file = file
        self._seen = 0
        self._version = 0

    @property
    def wants(self) -> bool:
        """Whether some consumer may take messages that are there already."""
        return any(consumer.behind and consumer.room > 0 for consumer in self.consumers)

    def look(self) -> Taken | None:
        """Take what is new for consumers that are alone with their queue and have reserved it, which is only reading.
        None when there is more to it, for ``take`` to do."""
        if not self.consumers:
            return []
        version, news = self._file.news(self._seen)
        if version != self._version:
            return None
        taken: Taken = []
        room: dict[EmbeddedConsumer, int] = {}
        for message, queue in news:
            self._seen = message
            for consumer in self._by_queue.get(queue, ()):
                if consumer.behind or message <= consumer.cursor:
                    continue
                left = room.setdefault(consumer, consumer.room)
                if message > consumer.reserved or left <= 0:
                    consumer.behind = True
                    continue
                claim = self._file.read(message, consumer.id)
                if claim is not None:
                    room[consumer] = left - 1
                    taken.append((consumer, claim))
                consumer.cursor = message
        return taken if taken or not self.wants else None

    def take(self, flush: Callable[[], None]) -> Taken:
        """Take what there is, inside a transaction that began with ``refresh``. ``flush`` removes what was
        acknowledged."""
        if self._file.topology.version != self._version:
            self._start_over()
        else:
            _, news = self._file.news(self._seen)
            for self._seen, queue in news:
                for consumer in self._by_queue.get(queue, ()):
                    consumer.behind = True
        wanting = [consumer for consumer in self.consumers if consumer.behind and consumer.room > 0]
        # Looked at before acknowledgements are removed: one that comes in between is here.
        held = [set(consumer.unsettled) for consumer in wanting]
        flush()
        return [(one, claim) for one, own in zip(wanting, held, strict=True) for claim in self._take_for(one, own)]

    def undo(self) -> None:
        """The transaction of ``take`` failed."""
        self._version = 0

    def _start_over(self) -> None:
        topology = self._file.topology
        self._version = topology.version
        self._seen = self._file.newest()
        self._by_queue = {}
        for consumer in self.consumers:
            consumer.cursor = consumer.reserved = 0
            queue = topology.queue_of(consumer.id)
            consumer.behind = queue is not None
            if queue is not None:
                consumer.queue_id = queue
                self._by_queue.setdefault(consumer.queue_id, []).append(consumer)

    def _take_for(self, consumer: EmbeddedConsumer, held: set[int]) -> list[Claim]:
        file, queue = self._file, consumer.queue_id
        alone = file.topology.is_alone(queue)
        room = consumer.room if alone else min(consumer.room, SHARE)
        found = file.ready(queue, consumer.cursor, consumer.id, room + len(held))
        ready = [message for message in found if message not in held][:room]
        claims = [claim for message in ready if (claim := file.read(message, consumer.id)) is not None]
        consumer.behind = len(ready) == room
        if not alone:
            file.claim(ready, consumer.id)
            return claims
        last = found[-1] if found else consumer.cursor
        upto = last if consumer.behind else max(last, self._seen) + RESERVE
        if upto > consumer.reserved:
            file.reserve(consumer.id, upto)
            consumer.reserved = upto
        consumer.cursor = ready[-1] if consumer.behind else max(last, self._seen)
        return claims
