"""Somebody with an account on the broker, and with whatever AMQP lets him try."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import contextmanager
from typing import Any

import pika
import pika.exceptions
from pika.adapters.blocking_connection import BlockingChannel

REFUSED = 403


class RawHeaders(pika.BasicProperties):
    """A message's headers as bytes of his own: the name of one, and what follows it."""

    def __init__(self, name: bytes, value: bytes) -> None:
        super().__init__()
        self._encoded = table(name, value)

    def encode(self) -> list[bytes]:
        """See BasicProperties."""
        return [struct.pack(">H", pika.BasicProperties.FLAG_HEADERS), self._encoded]


def table(name: bytes, value: bytes) -> bytes:
    """An AMQP table of one field."""
    field = bytes([len(name)]) + name + value
    return struct.pack(">I", len(field)) + field


class Attacker:
    """Raw AMQP with the account in ``url``, each attempt on a connection of its own."""

    def __init__(self, url: str) -> None:
        self._parameters = pika.URLParameters(url)

    def attempt(self, act: Callable[[BlockingChannel], Any]) -> Any:
        """What it gives; raises ChannelClosedByBroker with the server's refusal, also of what it does not answer."""
        with self.channel() as channel:
            given = act(channel)
            channel.basic_qos(prefetch_count=1)
            return given

    @contextmanager
    def channel(self) -> Any:
        connection = pika.BlockingConnection(self._parameters)
        try:
            yield connection.channel()
        finally:
            if connection.is_open:
                connection.close()

    def refused(self, act: Callable[[BlockingChannel], Any]) -> bool:
        """Whether the server says that this account may not."""
        try:
            self.attempt(act)
        except pika.exceptions.ChannelClosedByBroker as error:
            return bool(error.reply_code == REFUSED)
        return False

    def publish(
        self, exchange: str, key: str, body: bytes = b"hostile", said: pika.BasicProperties | None = None
    ) -> Callable[[BlockingChannel], None]:
        """An attempt to publish."""
        return lambda channel: channel.basic_publish(exchange, key, body, said)
