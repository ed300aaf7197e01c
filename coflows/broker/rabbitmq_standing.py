"""How a user stands on a RabbitMQ, and how his queues are declared then: as everywhere, or so that accounts can be held
to their own.

Permissions for the default exchange cannot tell one queue from another. So where users have accounts, what others send
to a user comes through an exchange of his, to which all accounts may write and from which he alone may read, and his
dead letters come through another one, which is his alone. Topic permissions would do with one exchange for all, but a
message would cost the server twice as much, and they are not asked for CC headers and dead letters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from coflows.broker.base import QueueSpec
from coflows.broker.rabbitmq_operations import Ask, Operations
from coflows.broker.topology import ACCOUNTS, door_exchange, door_queue, own_queues, owner_of
from coflows.errors import UnroutableError

Done = Callable[[Any], None]


class Standing:
    """``account``: whether this is a user's own account, which has his id as its name. ``look`` is for any thread but
    the link's, ``look_again`` for the link's."""

    def __init__(self, operations: Operations, user: str) -> None:
        self.account = owner_of(own_queues(user)) == user
        self._among_accounts = self.account
        self._operations = operations

    def look(self) -> None:
        """See whether users have accounts here. Raises what ``Operations.run`` raises."""
        if not self.account:
            try:
                self._operations.run(ACCOUNTS, _look)
                self._among_accounts = True
            except UnroutableError:
                pass

    def look_again(self, then: Callable[[], None]) -> None:
        """``look`` after a reconnect, then ``then``."""
        if self.account:
            then()
            return

        def looked(future: Future[None]) -> None:
            self._among_accounts |= future.exception() is None
            then()

        self._operations.start(ACCOUNTS, _look).add_done_callback(looked)

    def dead_letter_exchange(self, queue: str) -> str:
        """Through which dead letters get to their queue."""
        return queue if self.account else ""

    def declaration(self, spec: QueueSpec, *, before: bool = False) -> Ask:
        """Asks for a queue and for what brings messages into it. ``before``: with the properties that it has when its
        user had no account yet."""
        arguments: dict[str, Any] = {}
        if spec.single_active:
            arguments["x-single-active-consumer"] = True
        if spec.expires is not None:
            arguments["x-expires"] = max(1, int(spec.expires * 1000))
        if spec.dead_letter_queue is not None:
            # The last resort for what is rejected without a copy.
            exchange = "" if before else self.dead_letter_exchange(spec.dead_letter_queue)
            arguments |= {"x-dead-letter-exchange": exchange, "x-dead-letter-routing-key": spec.dead_letter_queue}

        def declare(channel: Any, done: Done) -> None:
            bind = self._binding(spec, channel, done)
            channel.queue_declare(spec.name, durable=True, arguments=arguments, callback=bind)

        return declare

    def exchange_behind(self, queue: str, spec: QueueSpec | None) -> str | None:
        """The exchange that goes with a queue when it is deleted: that of dead letters; with a user's door, his."""
        if self.account:
            return queue if spec is not None and spec.private else None
        user_id = owner_of(queue)
        is_door = self._among_accounts and user_id is not None and queue == door_queue(user_id).name
        return door_exchange(user_id) if is_door and user_id is not None else None

    def _binding(self, spec: QueueSpec, channel: Any, done: Done) -> Done:
        """What is to be done once the queue is there."""
        user_id = owner_of(spec.name)
        if user_id is None or not self._among_accounts or (spec.private and not self.account):
            return done
        exchange = spec.name if spec.private else door_exchange(user_id)

        def bind(_answer: Any) -> None:
            channel.queue_bind(spec.name, exchange, routing_key=spec.name, callback=done)

        def make(_answer: Any) -> None:
            channel.exchange_declare(exchange, "direct", durable=True, callback=bind)

        # An account's door is made with the account, and not for its user to take away.
        return make if spec.private or not self.account else bind


def _look(channel: Any, done: Done) -> None:
    logging.getLogger("pika.channel").addFilter(_is_news)  # A second time is none.
    channel.exchange_declare(ACCOUNTS, passive=True, callback=done)


def _is_news(record: logging.LogRecord) -> bool:
    """pika warns of what is usual: that users have no accounts here."""
    return f"no exchange '{ACCOUNTS}'" not in record.getMessage()
