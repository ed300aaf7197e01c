"""Brokers: named durable queues of opaque bytes. ``open_broker`` picks the adapter by the URL's scheme."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlsplit

from coflows.broker.base import Broker, Consumer, Delivery, QueueSpec
from coflows.errors import ConfigurationError
from coflows.model.hosts import is_loopback

__all__ = ["Broker", "Consumer", "Delivery", "QueueSpec", "open_broker"]

logger = logging.getLogger(__name__)


def open_broker(
    url: str,
    *,
    connect_timeout: float = 10.0,
    default_directory: Path | None = None,
    allow_plaintext: bool = False,
) -> Broker:
    """Reach the broker at ``url``: ``embedded://`` (in ``default_directory``), ``embedded:///directory``, ``amqp://``
    (with a warning when that is another machine, unless ``allow_plaintext``) or ``amqps://``. Raises
    ConfigurationError, BrokerUnavailableError or BrokerAuthError."""
    parts = urlsplit(url)
    if parts.scheme == "embedded":
        from coflows.broker.embedded import EmbeddedBroker

        directory = Path(parts.path) if parts.path else default_directory
        if directory is None or parts.netloc:
            raise ConfigurationError("The broker URL names no directory.", hint="Write embedded:///absolute/directory.")
        return EmbeddedBroker(directory)
    if parts.scheme in ("amqp", "amqps"):
        from coflows.broker.rabbitmq import RabbitMQBroker

        broker = RabbitMQBroker(url, connect_timeout=connect_timeout)
        if parts.scheme == "amqp" and not is_loopback(parts.hostname or "localhost") and not allow_plaintext:
            logger.warning(
                "The password, and who writes to whom, go to %s in the clear (the rest is sealed). Use amqps://; "
                "where nobody is on the wire, COFLOWS_ALLOW_PLAINTEXT=1 ends this warning.",
                broker.url,
            )
        return broker
    raise ConfigurationError(
        f"The broker URL begins with {parts.scheme[:12]!r}, which is no scheme.",
        hint="Use embedded://, embedded:///directory, amqp://user:password@host/ or amqps://...",
    )
