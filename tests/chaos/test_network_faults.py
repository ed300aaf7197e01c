"""Faults of the network, under load: half-open links, latency, loss, connections cut at any byte, confirms lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from coflows.broker import rabbitmq_consumer, rabbitmq_operations
from coflows.dead_letters import list_dead_letters
from tests.chaos.running import holders, running, until
from tests.chaos.world import Load, World, Worlds
from tests.services.netns import Namespace
from tests.services.proxy import Proxy
from tests.services.rabbitmq import RabbitMQ

pytestmark = [pytest.mark.rabbitmq, pytest.mark.timeout(300)]
OFFSETS, CLIENTS = 1000, 8
HEARTBEAT = 2
"""Seconds; the link is judged dead after a few times as much, and not after TCP's quarter of an hour."""


@pytest.fixture
def namespaces() -> Iterator[list[Namespace]]:
    namespaces: list[Namespace] = []
    yield namespaces
    for namespace in namespaces:
        namespace.close()


@pytest.fixture
def proxies(rabbitmq_node: RabbitMQ) -> Iterator[list[Proxy]]:
    proxies = [Proxy(rabbitmq_node.url) for _ in range(CLIENTS)]
    yield proxies
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def made(worlds: Worlds, namespaces: list[Namespace], proxies: list[Proxy]) -> Iterator[World]:
    with worlds() as made:
        yield made


def outpost(made: World, namespaces: list[Namespace]) -> tuple[Namespace, str]:
    """A network namespace, and the broker's URL in there."""
    namespace = Namespace()
    namespaces.append(namespace)
    return namespace, f"{made.node.listen(namespace.near)}?heartbeat={HEARTBEAT}"


def silence(namespace: Namespace, which: str) -> None:
    namespace.outward.silent = "outward" in which
    namespace.inward.silent = "inward" in which


def test_half_open_link_of_a_worker(made: World, namespaces: list[Namespace]) -> None:
    namespace, url = outpost(made, namespaces)
    made.worker()
    made.worker(broker_url=url, namespace=namespace)
    load = Load(made.witnesses(16, 0))
    for which in ("outward", "inward", "outward and inward"):
        with running(load):
            until(lambda: len(set(holders(made).values())) == 2)
            silence(namespace, which)
        load.send(2)
        # While the link is still broken: the other worker has taken over.
        verdict = load.verdict()
        assert verdict.good, (which, verdict)
        silence(namespace, "")
    load.send(3)
    verdict = load.verdict()
    assert verdict.good, verdict
    assert list_dead_letters(made.alice) == []


def test_half_open_links_of_clients(made: World, namespaces: list[Namespace]) -> None:
    made.worker()
    loads: list[Load] = []
    for _ in range(3):
        namespace, url = outpost(made, namespaces)
        with namespace.inside():
            loads.append(Load(made.witnesses(4, 0, made.open("carol", url))))
    with running(*loads):
        before = [len(namespace.outward.callers) for namespace in namespaces]
        for namespace, which in zip(namespaces, ("outward", "inward", "outward and inward"), strict=True):
            silence(namespace, which)
        # Both connections of each are given up, and tried to be made anew.
        until(lambda: all(len(one.outward.callers) >= n + 2 for one, n in zip(namespaces, before, strict=True)))
        for namespace in namespaces:
            silence(namespace, "")
    for load in loads:
        load.send(1)
        verdict = load.verdict()
        assert verdict.good, verdict


def test_latency_and_loss(made: World, namespaces: list[Namespace]) -> None:
    """200 ms each way, and one packet of a hundred lost."""
    namespace, url = outpost(made, namespaces)
    made.worker(broker_url=url, namespace=namespace)
    with namespace.inside():
        far = made.open("carol", url)
    near, remote = Load(made.witnesses(8, 0)), Load(made.witnesses(2, 0, far))
    namespace.set(delay=0.2, loss=0.01)
    with running(near, pause=0.1):
        remote.send(6)
        until(lambda: namespace.outward.lost > 3 and namespace.inward.lost > 3)
    for load in (near, remote):
        verdict = load.verdict()
        assert verdict.good, verdict


def test_a_connection_cut_at_every_byte(made: World, proxies: list[Proxy]) -> None:
    """1,000 offsets from the beginning of a message on, through the frames that it is sent in and into the next one;
    each in what the client says or in what the server says. A few clients share them."""
    made.worker()
    loads = [Load(made.witnesses(1, 0, made.open("carol", proxy.url))) for proxy in proxies]

    def cut(number: int) -> None:
        proxy, load = proxies[number], loads[number]
        for offset in range(number, OFFSETS, CLIENTS):
            proxy.cut_after(offset, answers=number % 2 == 1)
            while not proxy.cut_done.is_set():
                load.send(1)
        proxy.mend()

    with ThreadPoolExecutor(CLIENTS) as threads:
        list(threads.map(cut, range(CLIENTS)))
    for load in loads:
        verdict = load.verdict()
        assert verdict.good, verdict


def test_confirms_dropped_on_the_way_back(made: World, proxies: list[Proxy]) -> None:
    """What the server says is lost, while what is said to it still gets there: to the sender, then to the worker."""
    sender, worker, *_ = proxies
    made.worker(broker_url=worker.url)
    load = Load(made.witnesses(4, 0, made.open("carol", sender.url)))

    def confirmed() -> int:
        return sum(map(len, load.sent.values()))

    def unconfirmed() -> bool:
        """More was worked off than its sender knows to have arrived."""
        return len(list(made.alice.store.scan("done:"))) > confirmed()

    with running(load):
        for _ in range(10):
            before = confirmed()
            until(lambda: confirmed() > before)  # noqa: B023 (It is connected: no muted connection ever comes to be.)
            sender.mute()
            until(unconfirmed)
            sender.mend()
            worker.mute()
            assert worker.swallowed.wait(60)
            worker.mend()
    verdict = load.verdict()
    assert verdict.good, verdict


def test_a_client_closes_while_its_broker_is_away(
    made: World, proxies: list[Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq_operations, "OPERATION_TIMEOUT", 0.5)
    monkeypatch.setattr(rabbitmq_consumer, "CLOSE_PATIENCE", 0.5)
    proxy = proxies[0]
    made.worker()
    cl = made.open("carol", proxy.url)
    load = Load(made.witnesses(1, 0, cl))
    load.send(1)
    assert load.verdict().good
    proxy.refuse()
    cl.close()
