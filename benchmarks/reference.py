"""The reference: an echo over raw pika with the durability that CoFlows has, and nothing else.

Durable queues, persistent mandatory messages, pipelined confirms on both sides; the request is acknowledged after the
reply is confirmed. ``python -m benchmarks.reference URL QUEUE serve`` is the echoing side, ``call`` the calling one.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pika
from pika.adapters.select_connection import SelectConnection

from benchmarks.answering import answer
from benchmarks.contest import Contestant
from benchmarks.processes import Child, listening

NAME = "reference: raw pika"
BODY = b"x" * 100


class Peer:
    """A connection with one channel in confirm mode."""

    def __init__(self, url: str, queue: str) -> None:
        self.queue = queue
        self.confirmed_to_ack: dict[int, int] = {}
        self.tag = 0
        self.channel: Any = None
        self.connection = SelectConnection(pika.URLParameters(url), on_open_callback=self._opened)

    def _opened(self, connection: Any) -> None:
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        self.channel = channel
        channel.basic_qos(prefetch_count=1000)
        channel.confirm_delivery(self._confirmed)
        channel.queue_declare(self.queue, durable=True, callback=lambda _ok: self.ready())

    def _confirmed(self, frame: Any) -> None:
        tag = frame.method.delivery_tag
        tags = [tag] if not frame.method.multiple else [one for one in self.confirmed_to_ack if one <= tag]
        for one in tags:
            received = self.confirmed_to_ack.pop(one, None)
            if received is not None:
                self.channel.basic_ack(received)

    def publish(self, queue: str, body: bytes, reply_to: str | None, after: int | None) -> None:
        self.tag += 1
        if after is not None:
            self.confirmed_to_ack[self.tag] = after
        properties = pika.BasicProperties(delivery_mode=2, reply_to=reply_to)
        self.channel.basic_publish("", queue, body, properties, mandatory=True)

    def ready(self) -> None:
        raise NotImplementedError


class Echo(Peer):
    def ready(self) -> None:
        self.channel.basic_consume(self.queue, self._on_message)
        print("ready", flush=True)

    def _on_message(self, _channel: Any, method: Any, properties: Any, body: bytes) -> None:
        self.publish(properties.reply_to, body, None, method.delivery_tag)


class Caller(Peer):
    """Keeps ``window`` calls in flight until ``count`` are answered."""

    def __init__(self, url: str, queue: str, target: str, count: int, window: int, body: bytes) -> None:
        super().__init__(url, queue)
        self.target, self.count, self.window, self.body = target, count, window, body
        self.sent = self.answered = 0
        self.started = self.ended = 0.0
        self.sent_at: list[float] = []
        self.latencies: list[float] = []

    def ready(self) -> None:
        self.channel.basic_consume(self.queue, self._on_message)
        self.started = time.perf_counter()
        for _ in range(min(self.window, self.count)):
            self._send()

    def _send(self) -> None:
        self.sent += 1
        self.sent_at.append(time.perf_counter())
        self.publish(self.target, self.body, self.queue, None)

    def _on_message(self, channel: Any, method: Any, _properties: Any, _body: bytes) -> None:
        now = time.perf_counter()
        self.latencies.append(now - self.sent_at[self.answered])
        self.answered += 1
        channel.basic_ack(method.delivery_tag)
        if self.sent < self.count:
            self._send()
        elif self.answered == self.count:
            self.ended = now
            channel.queue_delete(self.queue, callback=lambda _ok: self.connection.close())
            self.connection.add_on_close_callback(lambda *_: self.connection.ioloop.stop())


@contextmanager
def running(url: str) -> Iterator[Contestant]:
    """The reference, on the broker at ``url``."""
    target = f"benchmark.{secrets.token_hex(8)}"
    with ExitStack() as exit_stack:
        echo = Child.python("-m", "benchmarks.reference", url, target, "serve")
        exit_stack.callback(delete_queue, url, target)
        exit_stack.callback(echo.close)
        client = Child.python("-m", "benchmarks.reference", url, target, "call")
        exit_stack.callback(client.close)
        yield Contestant(NAME, client, {"worker": lambda: [echo.pid], "broker": lambda: listening(url)}, many=10_000)


def delete_queue(url: str, queue: str) -> None:
    """Leave nothing behind on a broker that is not the benchmark's own."""
    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_delete(queue)
    connection.close()


def main(url: str, target: str, role: str) -> None:
    """One of the two processes."""
    if role == "serve":
        Echo(url, target).connection.ioloop.start()
        return

    def measure(_target: str, count: int, window: int) -> tuple[list[float], float]:
        caller = Caller(url, f"{target}.replies", target, count, window, BODY)
        caller.connection.ioloop.start()
        return caller.latencies, caller.ended - caller.started

    answer(measure)


if __name__ == "__main__":
    main(*sys.argv[1:])
