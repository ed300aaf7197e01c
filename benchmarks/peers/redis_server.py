"""A private Redis for the peers that need one: appends every write to disk before it answers."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

from tests.services.install import ServiceMissingError, install
from tests.services.processes import Lair, free_port

START_TIMEOUT = 20.0


class Redis:
    """Runs from ``start`` to ``stop``."""

    def __init__(self) -> None:
        if shutil.which("redis-server") is None:
            install("redis-server", "Redis", "PATH")
        self._port = free_port()
        self._lair = Lair("redis")
        self.url = f"redis://127.0.0.1:{self._port}/0"

    def start(self) -> Redis:
        """Start and wait until it listens. Raises ServiceMissingError."""
        options = {"port": self._port, "bind": "127.0.0.1", "dir": self._lair.folder, "save": ""}
        options |= {"appendonly": "yes", "appendfsync": "always"}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        log = (self._lair.folder / "log").open("wb")
        subprocess.Popen(
            ["redis-server", *words], env=self._lair.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port), 1).close()
                return self
            except OSError:
                if time.monotonic() > deadline:
                    self.stop()
                    raise ServiceMissingError("The private Redis did not start.") from None
                time.sleep(0.05)

    def stop(self) -> None:
        """End it and remove its data."""
        self._lair.clear()
