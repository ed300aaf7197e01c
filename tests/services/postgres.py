"""A private PostgreSQL server: own port, own folder, own password. ``python -m tests.services.postgres`` keeps one."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import threading
from pathlib import Path

import psycopg

from tests.services.install import ServiceMissingError, install
from tests.services.processes import Lair, free_port


class Postgres:
    """Runs from ``start`` to ``stop``; keeps its data when halted in between."""

    def __init__(self) -> None:
        self._binaries = binaries()
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.url = f"postgresql://coflows:{self.password}@127.0.0.1:{self.port}/postgres"
        # At once and without waiting for clients: the data is thrown away.
        self._lair = Lair("postgres", signal.SIGQUIT)
        self._folder = self._lair.folder

    def start(self, *addresses: str) -> Postgres:
        """Start and wait until it answers, making the cluster the first time; it listens at these addresses too.
        Raises ServiceMissingError."""
        try:
            if not (self._folder / "data").exists():
                self._make()
            listen = ",".join(("127.0.0.1", *addresses))
            options = f"-p {self.port} -c listen_addresses={listen} -c unix_socket_directories='{self._folder}'"
            self._run("pg_ctl", "-l", str(self._folder / "log"), "-w", "-t", "60", "-o", options, "start")
        except BaseException:
            self.stop()
            raise
        return self

    def url_at(self, address: str) -> str:
        """Its URL for who reaches it at another address than this machine's own."""
        return self.url.replace("127.0.0.1", address)

    def halt(self, how: str = "fast") -> None:
        """Shut it down; ``start`` brings it back with its data. ``immediate``: as in a crash."""
        self._run("pg_ctl", "-m", how, "-w", "-t", "60", "stop")

    def stop(self) -> None:
        """End it and remove its data."""
        self._lair.clear()

    def _make(self) -> None:
        password = self._folder / "password"
        password.write_text(self.password)
        if os.geteuid() == 0:
            for place in (self._folder, password):
                os.chown(place, _user().pw_uid, _user().pw_gid)
        self._run("initdb", "-U", "coflows", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8", "--locale=C")
        with (self._folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 198.18.0.0/15 scram-sha-256\n")  # The tests' namespaces.

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._binaries / program), "-D", str(self._folder / "data"), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
            user = _user()
            command = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", *command]
        said = self._folder / "commands"
        with said.open("ab") as out:
            done = subprocess.run(
                command, env=self._lair.environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd="/"
            )
        if done.returncode:
            logs = [
                place.read_text(errors="replace")[-2000:] for place in (said, self._folder / "log") if place.exists()
            ]
            raise ServiceMissingError("\n".join([f"PostgreSQL's {program} failed:", *logs]))


def answers(url: str) -> bool:
    """Whether a PostgreSQL answers there, and lets the account in."""
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True


def binaries() -> Path:
    """Where the server's programs are, installed when they are missing. Raises ServiceMissingError."""
    for attempt in ("look", "look again after installing"):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
        if found:
            return found[-1].parent
        if program := shutil.which("initdb"):
            return Path(program).resolve().parent
        if attempt == "look":
            install("postgresql", "PostgreSQL", "COFLOWS_TEST_POSTGRES_URL")
    raise ServiceMissingError("initdb is missing although the package postgresql is installed.")


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


if __name__ == "__main__":
    server = Postgres().start()
    print(server.url, flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
