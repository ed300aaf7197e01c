"""Dramatiq over RabbitMQ (confirmed publishes) or Redis; results are in Redis, for it keeps none in RabbitMQ.

``python -m benchmarks.peers.dramatiq_peer serve|call URL REDIS``, where URL is RabbitMQ's or Redis's.
"""

from __future__ import annotations

import sys
import threading

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.answering import answer, in_turn

BODY = "x" * 100


def main(role: str, url: str, redis: str) -> None:
    """One of the two processes."""
    broker = RedisBroker(url=url) if url.startswith("redis") else RabbitmqBroker(url=url, confirm_delivery=True)
    backend = RedisBackend(url=redis)
    broker.add_middleware(Results(backend=backend, store_results=True))
    dramatiq.set_broker(broker)

    @dramatiq.actor(actor_name="echo")
    def echo(body: str) -> str:
        return body

    if role == "serve":
        worker = dramatiq.Worker(broker, worker_threads=8)
        worker.start()
        print("ready", flush=True)
        threading.Event().wait()
    answer(
        lambda _target, count, window: in_turn(
            lambda: echo.send(BODY), lambda call: call.get_result(block=True, timeout=60_000), count, window
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
