"""A Ray actor: no broker, and nothing is durable. ``python -m benchmarks.peers.ray_peer call`` starts all of Ray."""

from __future__ import annotations

import sys

import ray

from benchmarks.answering import answer, in_turn

BODY = "x" * 100


def main(_role: str) -> None:
    """The calling process; the actor's is Ray's."""
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    @ray.remote
    class Echo:
        def echo(self, body: str) -> str:
            return body

    actor = Echo.remote()
    answer(lambda _target, count, window: in_turn(lambda: actor.echo.remote(BODY), ray.get, count, window))


if __name__ == "__main__":
    main(*sys.argv[1:])
