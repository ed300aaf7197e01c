"""What processes cost: the CPU time and memory of a process and all below it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

ROOT = Path(__file__).parents[1]
END_TIMEOUT = 15.0


def family(pids: Iterable[int]) -> list[psutil.Process]:
    """The processes that are there, and all below them."""
    found: dict[int, psutil.Process] = {}
    for pid in pids:
        try:
            parent = psutil.Process(pid)
            found |= {one.pid: one for one in (parent, *parent.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue
    return list(found.values())


def below(pid: int) -> list[int]:
    """The processes below it."""
    return [one.pid for one in family([pid]) if one.pid != pid]


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes and all below them, in ticks of 10 ms."""
    total = 0.0
    for one in family(pids):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def await_quiet(pids: Iterable[int], longest: float = 120.0) -> None:
    """Wait until the processes use less than a fifth of a core, so that what they were given is taken in."""
    known = list(pids)
    deadline = time.monotonic() + longest
    used = cpu_seconds(known)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        before, used = used, cpu_seconds(known)
        if used - before < 0.1:
            return


def resident_megabytes(pids: Iterable[int]) -> float:
    """Resident memory of the processes and all below them."""
    return sum(one.memory_info().rss for one in family(pids)) / 2**20


def listening(url: str) -> list[int]:
    """The processes of this machine that listen at the URL's port: none for a server elsewhere."""
    port = urlsplit(url).port
    found = {
        connection.pid
        for connection in psutil.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid is not None
    }
    return sorted(found)


class Child:
    """A process that says ``ready`` in its first line; see ``answering``."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=None if env is None else dict(env),
        )
        self.pid = self._process.pid
        self._asked = False
        self.read()

    @classmethod
    def python(cls, *words: str, env: Mapping[str, str] | None = None) -> Child:
        """A child of this interpreter."""
        return cls([sys.executable, *words], env)

    def read(self) -> str:
        """Its next line; RuntimeError when it ended instead."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended: {self._process.wait()}")
        return line

    def ask(self, question: Mapping[str, object]) -> dict[str, Any]:
        """Send a line, and wait for the answer."""
        self._asked = True
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.read())
        return answer

    def close(self) -> None:
        """End it. One that was asked ends by itself when nobody asks any more; others are told to."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        if not self._asked:
            self._process.terminate()
        try:
            self._process.wait(END_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
