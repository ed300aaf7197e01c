"""A private RabbitMQ node: own port, own name, own folder. ``python -m tests.services.rabbitmq`` keeps one running."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika
import pika.exceptions

from tests.services.install import ServiceMissingError, install
from tests.services.processes import Lair, end_all, free_port

BINARIES = Path("/usr/lib/rabbitmq/bin")
"""Debian's; those in /usr/sbin would change to another user."""
START_TIMEOUT = 120.0
HALT_TIMEOUT = 30.0


class RabbitMQ:
    """Runs from ``start`` to ``stop``; keeps its data when halted or killed in between."""

    def __init__(self) -> None:
        self._binaries = binaries()
        self.port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/"
        self._name = f"coflows-{secrets.token_hex(4)}@localhost"
        self._dist_port, self._epmd_port = free_port(), free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._admin_url: str | None = None
        self._lair = Lair("rabbitmq")
        self._folder = self._lair.folder
        (self._folder / "plugins").write_text("[].\n")
        (self._folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.default = 127.0.0.1:{self.port}\n"
            "vm_memory_high_watermark.absolute = 2GB\n"
            "disk_free_limit.absolute = 50MB\n"
        )

    @property
    def folder(self) -> Path:
        """Where all that it writes is: data, logs, configuration."""
        return self._folder

    def start(self) -> RabbitMQ:
        """Start and wait until it answers. Raises ServiceMissingError with the end of its log."""
        self._admin_url = None
        try:
            with (self._folder / "out").open("ab") as out:
                self._process = subprocess.Popen(
                    [str(self._binaries / "rabbitmq-server")],
                    env=self._environment(),
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def halt(self) -> None:
        """Shut it down in good order; ``start`` brings it back with its data."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(HALT_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._sweep()

    def kill(self) -> None:
        """``kill -9`` it; ``start`` brings it back with what it had on disk."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._sweep()

    def stop(self) -> None:
        """End it with all its processes, and remove its data."""
        self._lair.clear()
        if self._process is not None:
            self._process.wait()

    def control(self, *arguments: str) -> str:
        """``rabbitmqctl``; gives what it printed."""
        command = [str(self._binaries / "rabbitmqctl"), "-q", "-n", self._name, *arguments]
        done = subprocess.run(command, env=self._environment(), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def evaluate(self, expression: str) -> str:
        """Have the node evaluate an Erlang expression, a hundred times as fast as ``rabbitmqctl eval``; gives the value
        as Erlang writes it. Raises RuntimeError."""
        cookie = (self._folder / ".erlang.cookie").read_text()
        command = ["erl_call", "-c", cookie, "-address", f"localhost:{self._dist_port}", "-e"]
        deadline = time.monotonic() + HALT_TIMEOUT
        while True:
            done = subprocess.run(
                command, input=f"{expression}.\n", env=self._environment(), capture_output=True, text=True, timeout=60
            )
            # A node that has just come up may serve clients, and not be reached by other nodes yet.
            if "failed to connect to node" not in done.stderr + done.stdout or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        answer = re.fullmatch(r"\{ok, (.*)\}\s*", done.stdout, re.DOTALL)
        if answer is None:
            raise RuntimeError(f"{expression} failed:\n{done.stdout}{done.stderr}")
        return answer[1]

    @contextmanager
    def bounded(self, queues: str, length: int) -> Iterator[None]:
        """Queues whose name matches take that many messages and refuse more, until the block ends. What is in them
        already stays."""
        by, name = '<<"tests">>', f'<<"{secrets.token_hex(4)}">>'
        pattern = queues.replace("\\", "\\\\")
        # Refusing comes first: a queue takes the length before the rest of its policy, and until then drops its oldest.
        for rule in ({"overflow": "reject-publish"}, {"overflow": "reject-publish", "max-length": length}):
            text = json.dumps(rule).replace('"', '\\"')
            self.evaluate(
                f'ok = rabbit_policy:parse_set(<<"/">>, {name}, <<"{pattern}">>, <<"{text}">>, 0, <<"queues">>, {by})'
            )
        try:
            yield
        finally:
            self.evaluate(f'ok = rabbit_policy:delete(<<"/">>, {name}, {by})')

    def listen(self, address: str, port: int = 5672) -> str:
        """Listen at one more address until the next restart; gives the URL there, with an account that is let in from
        other machines than this one."""
        account = secrets.token_hex(8)
        name, by, everything = f'<<"{account}">>', '<<"tests">>', ", ".join(['<<".*">>'] * 3)
        self.evaluate(
            f'rabbit_networking:start_tcp_listener({{"{address}", {port}}}, 10), '
            f"rabbit_auth_backend_internal:add_user({name}, {name}, {by}), "
            f'rabbit_auth_backend_internal:set_permissions({name}, <<"/">>, {everything}, {by})'
        )
        return f"amqp://{account}:{account}@{address}:{port}/"

    def listen_tls(self, options: str) -> int:
        """Listen with TLS too until the next restart, with such options as Erlang writes them; gives the port."""
        port = free_port()
        self.evaluate(f'ok = rabbit_networking:start_ssl_listener({{"127.0.0.1", {port}}}, {options}, 2)')
        return port

    def admin_url(self) -> str:
        """The URL of its management with an administrator; the plugin is begun when this is first asked for, in a
        second or two, and stays until the next restart."""
        if self._admin_url is None:
            port, plugins = free_port(), self._folder / "plugins"
            plugins.write_text("[rabbitmq_management].\n")
            try:
                self.evaluate(
                    "rabbit:await_startup(), application:set_env(rabbitmq_management, tcp_config, "
                    f'[{{ip, "127.0.0.1"}}, {{port, {port}}}], [{{persistent, true}}]), '
                    f'{{ok, _, _}} = rabbit_plugins:ensure("{plugins}")'
                )
            finally:
                plugins.write_text("[].\n")  # A restart would not know the port.
            self._admin_url = f"http://guest:guest@127.0.0.1:{port}"
        return self._admin_url

    def _sweep(self) -> None:
        """epmd and other helpers stay behind a node."""
        end_all(self._lair.marker)
        if self._process is not None:
            self._process.wait()

    def _environment(self) -> dict[str, str]:
        folder = self._folder
        return {
            **self._lair.environment,
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
                raise ServiceMissingError(f"The private RabbitMQ node did not start:\n{log}")
            time.sleep(0.1)


def answers(url: str) -> bool:
    """Whether a RabbitMQ answers there, and lets the account in."""
    try:
        parameters = pika.URLParameters(url)
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = 5
        pika.BlockingConnection(parameters).close()
    except (pika.exceptions.AMQPError, OSError):
        return False
    return True


def binaries() -> Path:
    """Where the server's programs are, installed when they are missing. Raises ServiceMissingError."""
    server = BINARIES / "rabbitmq-server"
    if not server.exists():
        install("rabbitmq-server", "RabbitMQ", "COFLOWS_TEST_AMQP_URL")
    if not server.exists():
        raise ServiceMissingError(f"{server} is missing although the package rabbitmq-server is installed.")
    return BINARIES


if __name__ == "__main__":
    node = RabbitMQ().start()
    print(node.url, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        node.stop()
