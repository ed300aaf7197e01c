"""Ends a service, or a whole run of the tests, with every process that belongs to it, also when it dies unasked."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIRST_PORT, LAST_PORT = 20000, 32000
"""Below the ports that the system gives to clients: one that connects to a stopped server's cannot meet itself."""
MARKER = "TESTS_OF_COFLOWS"
"""The variable that tells whose a process is. Not COFLOWS_...: some tests take those away from what they start."""


def reserve(name: str) -> socket.socket | None:
    """Take a name of which there is one on this machine, until the socket closes or this process ends; None: taken."""
    held = socket.socket(socket.AF_UNIX)
    try:
        held.bind(f"\0coflows-test-{name}")
    except OSError:
        held.close()
        return None
    return held


def free_port() -> int:
    """A TCP port of the loopback interface that nobody has now, and no other tests get while this process lives: its
    server may be away for a while."""
    while True:
        port = random.randint(FIRST_PORT, LAST_PORT)
        held = reserve(f"port-{port}")
        if held is None:
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                held.close()
                continue
        held.detach()
        return port


def processes_with(marker: str) -> list[int]:
    """The processes that have ``marker`` in their environment: a daemon's children keep it, wherever they are."""
    found = []
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and int(place.name) != os.getpid():
            try:
                if marker.encode() in (place / "environ").read_bytes().split(b"\0"):
                    found.append(int(place.name))
            except OSError:
                continue
    return found


def command_of(pid: int) -> str:
    """What the process was started with; nothing when it has ended."""
    try:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def end_all(marker: str, first: signal.Signals = signal.SIGTERM, patience: float = 20.0) -> None:
    """Ask them to end with ``first``, then kill those that stay."""
    deadline = time.monotonic() + patience
    asked: set[int] = set()
    while left := processes_with(marker):
        for pid in left:
            late = time.monotonic() > deadline
            if late or pid not in asked:
                asked.add(pid)
                try:
                    os.kill(pid, signal.SIGKILL if late else first)
                except ProcessLookupError:
                    continue
        time.sleep(0.05)


class Lair:
    """A service's folder, and a guard that ends the service and removes the folder as soon as this process is gone.

    Whatever runs for the service gets ``environment``, by which the guard knows it.
    """

    def __init__(self, name: str, end: signal.Signals = signal.SIGTERM) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"coflows-{name}-"))
        self.marker = f"{MARKER}={self.folder}"
        self._end = end
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tests.services.guard", self.marker, str(self.folder), str(int(end))],
            stdin=subprocess.PIPE,
            start_new_session=True,
            # Of nobody: the guard of those who started the service would end it before it has cleared up.
            env={name: value for name, value in os.environ.items() if name != MARKER},
            cwd=Path(__file__).parents[2],
        )

    @property
    def environment(self) -> dict[str, str]:
        """The environment for the service's processes."""
        return {**os.environ, MARKER: str(self.folder)}

    def clear(self) -> None:
        """End what still runs and remove the folder."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()


def guard(marker: str, folder: str, end: int) -> None:
    """Wait until standard input closes, which it does when its other end dies; then clear up."""
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    end_all(marker, signal.Signals(end))
    shutil.rmtree(folder, ignore_errors=True)
