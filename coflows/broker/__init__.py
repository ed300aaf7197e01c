"""Brokers: named durable queues of opaque bytes. ``open_broker`` picks the adapter by the URL's scheme."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.errors import ConfigurationError

__all__ = ["Broker", "Consumer", "Delivery", "QueueSpec", "open_broker"]


def open_broker(url: str, *, connect_timeout: float = 10.0, default_directory: Path | None = None) -> Broker:
    """Reach the broker at ``url``: ``embedded://`` (in ``default_directory``), ``embedded:///directory``, ``amqp://``
    or ``amqps://``. Raises ConfigurationError, BrokerUnavailableError or BrokerAuthError."""
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        from coflows.broker.embedded import EmbeddedBroker

        directory = Path(parts.path) if parts.path else default_directory
        if directory is None or parts.netloc:
            raise ConfigurationError(
                f"Broker URL {url!r} names no directory.", hint="Write embedded:///absolute/directory."
            )
        return EmbeddedBroker(directory)
    if parts.scheme in ("amqp", "amqps"):
        from coflows.broker.rabbitmq import RabbitMQBroker

        return RabbitMQBroker(url, connect_timeout=connect_timeout)
    raise ConfigurationError(
        f"Broker URL has the unknown scheme {parts.scheme!r}.",
        hint="Use embedded://, embedded:///directory, amqp://user:password@host/ or amqps://...",
    )
