"""Celery over RabbitMQ, durable: confirmed publishes, acknowledged late, persistent results of the rpc backend.

``python -m benchmarks.peers.celery_peer serve|call URL``.
"""

from __future__ import annotations

import sys

from celery import Celery
from celery.signals import worker_ready

from benchmarks.answering import answer, in_turn

BODY = "x" * 100


def application(url: str) -> Celery:
    """Both sides' settings."""
    app = Celery("peer", broker=url, backend="rpc://")
    app.conf.update(
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        broker_transport_options={"confirm_publish": True},
        result_persistent=True,
        worker_prefetch_multiplier=500,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
    )

    @app.task(name="echo")
    def echo(body: str) -> str:
        return body

    return app


def main(role: str, url: str) -> None:
    """One of the two processes; the worker works in its own thread (pool solo), the quickest for short tasks."""
    app = application(url)
    if role == "serve":
        worker_ready.connect(lambda **_: print("ready", file=sys.__stdout__, flush=True), weak=False)
        app.worker_main(["worker", "--pool=solo", "--loglevel=ERROR", "--without-gossip", "--without-mingle"])
        return
    echo = app.tasks["echo"]
    answer(
        lambda _target, count, window: in_turn(
            lambda: echo.delay(BODY), lambda call: call.get(timeout=60), count, window
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
