"""Nameko's RPC over RabbitMQ: persistent messages, confirmed publishes, acknowledged after the reply.

``python -m benchmarks.peers.nameko_peer serve|call URL``.
"""

from __future__ import annotations

import sys

if sys.argv[1:2] == ["serve"]:
    import eventlet

    eventlet.monkey_patch()

from nameko.containers import ServiceContainer
from nameko.rpc import rpc
from nameko.standalone.rpc import ClusterRpcProxy

from benchmarks.answering import answer, in_turn

BODY = "x" * 100


class Echo:
    """The service."""

    name = "echo"

    @rpc
    def echo(self, body: str) -> str:
        """Give back what came."""
        return body


def main(role: str, url: str) -> None:
    """One of the two processes."""
    config = {"AMQP_URI": url, "max_workers": 10}
    if role == "serve":
        container = ServiceContainer(Echo, config=config)
        container.start()
        print("ready", flush=True)
        container.wait()
        return
    with ClusterRpcProxy(config) as cluster:
        answer(
            lambda _target, count, window: in_turn(
                lambda: cluster.echo.echo.call_async(BODY), lambda call: call.result(), count, window
            )
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
