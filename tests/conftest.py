"""Fixtures that all tests share: the real services, and users who close after the test."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.config import create_terminal_writer

from coflows import Client, start_users
from coflows.identity.home import Home
from tests.services import chromium, postgres, rabbitmq
from tests.services.install import ServiceMissingError
from tests.services.processes import MARKER, Lair, command_of, processes_with
from tests.worker_processes import StartWorker, WorkerProcesses


def pytest_configure(config: pytest.Config) -> None:
    """Where pytest-timeout writes what hung: the workers of pytest-xdist have no terminal, but standard error."""
    if hasattr(config, "workerinput"):
        writer = create_terminal_writer(config, sys.stderr)
        config.get_terminal_writer = lambda: writer  # type: ignore[method-assign]


if TYPE_CHECKING:
    from coflows.registry import RunningService


def pytest_collection_finish(session: pytest.Session) -> None:
    """Install what is missing before the first test: it may take longer than one test is given."""
    if session.config.option.collectonly:
        return
    wanted = {mark.name for item in session.items for mark in item.iter_markers()}
    with contextlib.suppress(ServiceMissingError):  # The fixtures tell it, to the tests concerned.
        if "rabbitmq" in wanted:
            rabbitmq.binaries()
        if "postgres" in wanted:
            postgres.binaries()
    with contextlib.suppress(ServiceMissingError):
        if "browser" in wanted:
            chromium.binary()


@pytest.fixture(scope="session", autouse=True)
def nothing_stays() -> Iterator[None]:
    """Whatever the tests start ends with this process, also when it is ended by a timeout; at the end all is gone."""
    lair = Lair("session", signal.SIGKILL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARKER, str(lair.folder))
        yield
    left = {pid: shown for pid in processes_with(lair.marker) if "multiprocessing" not in (shown := command_of(pid))}
    lair.clear()
    assert not left, f"the tests left processes behind: {left}"


@pytest.fixture(scope="session")
def amqp_url(request: pytest.FixtureRequest) -> str:
    """A real RabbitMQ: that of COFLOWS_TEST_AMQP_URL when it answers, else the tests' own."""
    url = os.environ.get("COFLOWS_TEST_AMQP_URL")
    return url if url and rabbitmq.answers(url) else str(request.getfixturevalue("rabbitmq_node").url)


@pytest.fixture(scope="session")
def rabbitmq_node() -> Iterator[rabbitmq.RabbitMQ]:
    """A RabbitMQ node of the tests' own, to halt, kill and control; each test leaves it running."""
    node = rabbitmq.RabbitMQ()
    try:
        yield node.start()
    finally:
        node.stop()


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """A real PostgreSQL: that of COFLOWS_TEST_POSTGRES_URL when it answers, else a private server."""
    url = os.environ.get("COFLOWS_TEST_POSTGRES_URL")
    if url and postgres.answers(url):
        yield url
        return
    server = postgres.Postgres()
    try:
        yield server.start().url
    finally:
        server.stop()


@pytest.fixture(params=["embedded", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Each broker in turn."""
    return "embedded://" if request.param == "embedded" else str(request.getfixturevalue("amqp_url"))


@pytest.fixture
def users() -> Iterator[Callable[..., list[Client]]]:
    """``start_users`` whose users close at the end of the test."""
    started: list[Client] = []

    def start(num_users: int = 2, broker_url: str | None = None, store_url: str | None = None) -> list[Client]:
        clients = start_users(num_users, broker_url, store_url)
        started.extend(clients)
        return clients

    yield start
    for cl in reversed(started):
        cl.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty COFLOWS_HOME."""
    monkeypatch.setenv("COFLOWS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def worker_processes(home: Path) -> Iterator[WorkerProcesses]:
    """For the users ``owner`` and ``caller`` of that home."""
    for name in ("owner", "caller"):
        Home(home).create_user(name)
    processes = WorkerProcesses()
    yield processes
    processes.close()


@pytest.fixture
def start_worker(worker_processes: WorkerProcesses, broker_url: str, monkeypatch: pytest.MonkeyPatch) -> StartWorker:
    """Starts a worker of ``owner``'s on each broker in turn."""
    monkeypatch.setenv("COFLOWS_BROKER_URL", broker_url)
    return worker_processes.owners


@pytest.fixture
def serve(home: Path) -> Iterator[Callable[..., RunningService]]:
    """``start_service``, of this machine and quick to beat; what it starts ends with the test."""
    from coflows.registry import start_service

    running: list[RunningService] = []

    def start(loader: Any = None, **said: Any) -> RunningService:
        running.append(start_service(loader, **{"url": "http://localhost:0", "heartbeat": 0.3, **said}))
        return running[-1]

    yield start
    for service in reversed(running):
        service.stop()
