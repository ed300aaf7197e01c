"""Worker processes of a test: each is ready when it is given out, and ends with the test."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[1]
StartWorker = Callable[..., subprocess.Popen[bytes]]


class WorkerProcesses:
    """Starts them; ``close`` kills them all."""

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self, *module: str, **settings: str) -> subprocess.Popen[bytes]:
        """``python -m`` with these words, and these variables added to the environment."""
        command = [sys.executable, "-m", *module]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, **settings}, cwd=ROOT)
        self._started.append(process)
        assert process.stdout is not None and process.stdout.readline().startswith(b"Ready")
        return process

    def owners(self, failpoint: str = "") -> subprocess.Popen[bytes]:
        """A worker for everything that the user ``owner`` serves."""
        return self.start("coflows.cli", "--as", "owner", "worker", "all", COFLOWS_FAILPOINTS=failpoint)

    def close(self) -> None:
        """Kill all, and wait until they are gone."""
        for process in self._started:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
