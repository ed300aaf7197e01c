"""Nodes, registries and providers as processes of their own: what the seed of the project shows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.registry_world import Serve, answers, eventually, free_urls, get, run_process, total

Start = Callable[..., BaseProcess]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Runs a service in a process; all are of one home, and end with the test."""
    running: list[BaseProcess] = []

    def begin(**said: Any) -> BaseProcess:
        running.append(run_process(tmp_path / "home", **said))
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.join()


def loader(path: Path, number: int, **said: Any) -> str:
    flows = [
        {
            "endpoint": f"flow_{one}",
            "name": f"Flow {one}",
            "author": f"author{one % 3}",
            "tags": ["even"] * (1 - one % 2),
        }
        for one in range(number)
    ]
    path.write_text(yaml.safe_dump({**said, "flows": flows}))
    return str(path)


def test_the_seed(start: Start, tmp_path: Path) -> None:
    node_url, registry_url, hybrid_url = free_urls(3)
    node_yaml = loader(
        tmp_path / "node.yaml",
        5,
        url=node_url,
        organization="Journey",
        connect=[registry_url],
        registry=False,
        feed=False,
    )
    registry_yaml = loader(tmp_path / "registry.yaml", 0, url=registry_url, organization="Registry")
    hybrid_yaml = loader(
        tmp_path / "hybrid.yaml", 50, url=hybrid_url, organization="Mediaplus", connect=registry_url, feed=False
    )

    node = start(loader=node_yaml, retry=-1)
    eventually(lambda: answers(node_url), "the node")
    registry = start(loader=registry_yaml, cache_reset=True)
    start(loader=hybrid_yaml, cache_reset=True, retry=-1)
    for url in (registry_url, hybrid_url):
        eventually(lambda url=url: answers(url), url)

    assert get(f"{node_url}/")["registry"] is False
    assert get(f"{registry_url}/")["registry"] is True and get(f"{registry_url}/")["feed"] is True
    assert get(f"{hybrid_url}/")["registry"] is True and get(f"{hybrid_url}/")["feed"] is False
    eventually(lambda: bool(get(f"{node_url}/")["idle"] and get(f"{hybrid_url}/")["idle"]), "both in step")
    assert total(node_url) == 5
    assert total(registry_url) == 55
    assert total(hybrid_url) == 50
    counts = get(f"{registry_url}/counts")
    assert counts == {"total": 55, "organizations": {"Journey": 5, "Mediaplus": 50}, "tags": {"even": 28}}

    # The node dies; the registry is killed, and comes back with what it had.
    node.terminate()
    node.join()
    assert node.exitcode == 0
    registry.kill()
    registry.join()
    registry = start(loader=registry_yaml, retry=-1)
    eventually(lambda: answers(registry_url), "the registry")
    assert total(registry_url) == 55

    # It comes back as another one, without flows, and the registry follows.
    start(
        url=node_url, registry=False, feed=False, organization="Node with New Name", connect=registry_url, retry=-1,
        cache_data=str(tmp_path / "another.db"),
    )  # fmt: skip
    eventually(lambda: answers(node_url), "the node")
    assert get(f"{node_url}/")["organization"] == "Node with New Name"
    assert total(node_url) == 0
    eventually(lambda: total(registry_url) == 50, "50 flows")
    names = {one["url"]: one["organization"] for one in get(f"{registry_url}/map")["nodes"]}
    assert names == {node_url: "Node with New Name", registry_url: "Registry", hybrid_url: "Mediaplus"}
    assert total(hybrid_url) == 50

    # Who leaves a registry still lists its own flows.
    assert httpx.delete(f"{hybrid_url}/connect", timeout=20).status_code == 204
    assert total(node_url) == 0
    assert total(registry_url) == 0
    assert total(hybrid_url) == 50


def test_the_commands(serve: Serve, tmp_path: Path) -> None:
    """Run by the command line, and commanded by its owner from elsewhere: it does not take unsigned commands."""
    (url,) = free_urls(1)
    path = loader(tmp_path / "node.yaml", 2, organization="Acme")
    registry = serve(url="http://localhost:0")

    def coflows(*words: str) -> str:
        command = [sys.executable, "-m", "coflows.cli", "registry", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

    listen = f"127.0.0.1:{url.rpartition(':')[2]}"
    words = [
        "--loader",
        path,
        "--url",
        url,
        "--listen",
        listen,
        "--no-registry",
        "--no-feed",
        "--screen-level",
        "ERROR",
    ]
    process = subprocess.Popen([sys.executable, "-m", "coflows.cli", "registry", "run", *words])
    try:
        eventually(lambda: answers(url), "the node")
        assert httpx.post(f"{url}/connect", json={"url": registry.url}).status_code == 401
        assert coflows("connect", registry.url, "--service", url).startswith(url)
        eventually(lambda: total(registry.url) == 2, "its flows")
        shown = coflows("show", "--service", url)
        assert f"is a node of {registry.user_id} with 2 flows" in shown and f"{registry.url}: connected" in shown
        assert f"left {registry.url}." in coflows("disconnect", "--service", url)
        assert "not connected to any registry" in coflows("disconnect", "--service", url)
        assert "not connected to http://x" in coflows("disconnect", "http://x", "--service", url)
        assert total(registry.url) == 0 and total(url) == 2
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
