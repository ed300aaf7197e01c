"""Services for tests: free URLs, what they answer, and waiting for them: what another process knows is asked for."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx

from coflows.registry import RunningService, run_service
from tests.services.network import enter
from tests.services.processes import free_port

Serve = Callable[..., RunningService]
"""Starts a service in this process; it ends with the test."""
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["coflows.registry.running"])
TIMEOUT = 60
ASK_AGAIN = 0.05


def _run(home: str, place: str | None, said: dict[str, Any]) -> None:
    os.environ["COFLOWS_HOME"] = home
    if place is not None:
        enter(place)
    run_service(**said)


def run_process(home: Path, place: str | None = None, **said: Any) -> BaseProcess:
    """``run_service`` in a process of its own, for the caller to end; at a place of a network, when one is given."""
    said = {"heartbeat": 0.5, "screen_level": "ERROR", **said}
    process = processes.Process(target=_run, args=(str(home), place, said))
    process.start()
    return process


def free_urls(number: int) -> list[str]:
    """URLs of this machine at which nothing listens."""
    return [f"http://localhost:{free_port()}" for _ in range(number)]


def get(url: str) -> Any:
    """The JSON that a service answers."""
    return httpx.get(url, timeout=30).raise_for_status().json()


def total(url: str) -> int:
    """How many flows a service lists."""
    return int(get(f"{url}/flows")["total"])


def answers(url: str) -> bool:
    """Whether it does."""
    try:
        return httpx.get(f"{url}/health", timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def eventually(holds: Callable[[], bool], what: str, timeout: float = TIMEOUT) -> None:
    """Ask until it holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"still not there: {what}"
        time.sleep(ASK_AGAIN)
