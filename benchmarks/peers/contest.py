"""The peers as contestants: those that are installed in their environment, each with why the others are not there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from benchmarks.contest import Contestant, Pids
from benchmarks.peers.redis_server import Redis
from benchmarks.processes import ROOT, Child, below, listening

PYTHON = ROOT / ".venv-peers" / "bin" / "python"


@dataclass(frozen=True, slots=True)
class Peer:
    """One row: which module of this package, and the servers whose URLs it is given, in order. ``serves``: it has a
    worker process of its own to start."""

    name: str
    module: str
    servers: tuple[str, ...]
    serves: bool = True
    many: int = 1000


PEERS = (
    Peer("Celery, RabbitMQ (acks late, confirms, persistent)", "celery_peer", ("rabbitmq",)),
    Peer("Dramatiq, RabbitMQ (confirms), results in Redis", "dramatiq_peer", ("rabbitmq", "redis")),
    Peer("Dramatiq, Redis (appendfsync always)", "dramatiq_peer", ("redis", "redis")),
    Peer("Nameko, RabbitMQ (confirms, persistent)", "nameko_peer", ("rabbitmq",)),
    Peer("Ray actor (no broker, nothing durable)", "ray_peer", (), serves=False, many=3000),
)


@contextmanager
def running(peer: Peer, urls: dict[str, str]) -> Iterator[Contestant]:
    """The peer, until the block ends; RuntimeError when it does not start."""
    given = [urls[server] for server in peer.servers]

    def child(role: str) -> Child:
        return Child([str(PYTHON), "-W", "ignore", "-m", f"benchmarks.peers.{peer.module}", role, *given])

    with ExitStack() as exit_stack:
        roles: dict[str, Pids] = {}
        if peer.serves:
            worker = child("serve")
            exit_stack.callback(worker.close)
            roles["worker"] = lambda: [worker.pid]
        client = child("call")
        exit_stack.callback(client.close)
        if not peer.serves:
            roles["worker"] = lambda: below(client.pid)
        if given:
            roles["broker"] = lambda: [pid for url in dict.fromkeys(given) for pid in listening(url)]
        yield Contestant(peer.name, client, roles, many=peer.many)


@contextmanager
def servers(rabbitmq: str) -> Iterator[dict[str, str]]:
    """URLs of what the peers need."""
    redis = Redis().start()
    try:
        yield {"rabbitmq": rabbitmq, "redis": redis.url}
    finally:
        redis.stop()


def each(urls: dict[str, str], measure: Callable[[Contestant], None], missing: Callable[[str, str], None]) -> None:
    """Measure one peer after the other; ``missing`` is told the name and reason of those that do not run."""
    for peer in PEERS:
        try:
            with running(peer, urls) as contestant:
                measure(contestant)
        except (RuntimeError, OSError) as error:
            missing(peer.name, str(error))
