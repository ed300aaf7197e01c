"""A private RabbitMQ node: own port, own name, own folder. ``python -m tests.services.rabbitmq`` keeps one running."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pika

from tests.services.install import ServiceMissingError, install
from tests.services.processes import end_all, free_port

MARKER = "COFLOWS_TEST_NODE"
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
START_TIMEOUT = 120.0


class RabbitMQ:
    """Runs from ``start`` to ``stop``; keeps its data in between, so it can be restarted."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._name = f"coflows-{secrets.token_hex(4)}@localhost"
        self._folder = Path(tempfile.mkdtemp(prefix="coflows-rabbitmq-"))
        self._dist_port, self._epmd_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> RabbitMQ:
        """Start and wait until it answers."""
        server = _server()
        for name in ("mnesia", "log"):
            (self._folder / name).mkdir(exist_ok=True)
        (self._folder / "plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\nloopback_users = none\n"
            "vm_memory_high_watermark.absolute = 2GB\ndisk_free_limit.absolute = 50MB\n"
        )
        with (self._folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [server],
                env=self._environment(),
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._wait()
        return self

    def stop(self) -> None:
        """End it with all its processes, and remove its data."""
        self.halt()
        shutil.rmtree(self._folder, ignore_errors=True)

    def halt(self) -> None:
        """End it with all its processes; ``start`` brings it back with its data."""
        end_all(f"{MARKER}={self._name}")
        if self._process is not None:
            self._process.wait()

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        end_all(f"{MARKER}={self._name}", patience=0.0)

    def control(self, *arguments: str) -> str:
        """``rabbitmqctl``; gives what it printed."""
        command = [str(SERVER.with_name("rabbitmqctl")), "-n", self._name, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True, check=True)
        return done.stdout

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            **os.environ,
            MARKER: self._name,
            "HOME": str(folder),
            "RABBITMQ_NODENAME": self._name,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
        }

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not answers(self.url):
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "out").read_text(errors="replace")[-3000:]
                self.stop()
                raise ServiceMissingError(f"The private RabbitMQ node did not start:\n{log}")
            time.sleep(0.2)


def answers(url: str) -> bool:
    """Whether a RabbitMQ answers there."""
    try:
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
        pika.BlockingConnection(parameters).close()
    except Exception:
        return False
    return True


def _server() -> str:
    if not SERVER.exists():
        install("rabbitmq-server", "RabbitMQ")
    if not SERVER.exists():
        raise ServiceMissingError(f"{SERVER} is missing although rabbitmq-server is installed.")
    return str(SERVER)


if __name__ == "__main__":
    node = RabbitMQ().start()
    try:
        print(node.url, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        node.stop()
