"""A private PostgreSQL server: own port, own folder, own password. ``python -m tests.services.postgres`` keeps one."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path

from tests.services.install import ServiceMissingError, install
from tests.services.processes import free_port


class Postgres:
    """Runs from ``start`` to ``stop``; keeps its data in between."""

    def __init__(self) -> None:
        self.port = free_port()
        self.password = secrets.token_hex(8)
        self.url = f"postgresql://coflows:{self.password}@127.0.0.1:{self.port}/postgres"
        self._folder = Path(tempfile.mkdtemp(prefix="coflows-postgres-"))

    def start(self) -> Postgres:
        """Start, making the cluster the first time."""
        data = self._folder / "data"
        if not data.exists():
            (self._folder / "password").write_text(self.password)
            _give(self._folder, self._folder / "password")
            self._run("initdb", "-D", str(data), "-U", "coflows", "-A", "scram-sha-256", "-E", "UTF8", "--locale=C",
                      f"--pwfile={self._folder / 'password'}")
        options = f"-p {self.port} -h 127.0.0.1 -k {self._folder}"
        self._run("pg_ctl", "-D", str(data), "-l", str(self._folder / "log"), "-w", "-t", "60", "-o", options, "start")
        return self

    def halt(self) -> None:
        """End it; ``start`` brings it back with its data."""
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")

    def stop(self) -> None:
        """End it and remove its data."""
        self.halt()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(_binaries() / program), *arguments]
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root.
            command = ["setpriv", f"--reuid={_user().pw_uid}", f"--regid={_user().pw_gid}", "--clear-groups", *command]
        log = self._folder / "commands"
        with log.open("ab") as out:
            done = subprocess.run(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd="/")
        if done.returncode:
            raise ServiceMissingError(f"{program} failed:\n{log.read_text(errors='replace')[-3000:]}")


def answers(url: str) -> bool:
    """Whether a PostgreSQL answers there."""
    import psycopg

    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.Error:
        return False
    return True


def _binaries() -> Path:
    for _ in range(2):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
        if found:
            return found[-1].parent
        if program := shutil.which("initdb"):
            return Path(program).resolve().parent
        install("postgresql", "PostgreSQL")
    raise ServiceMissingError("initdb is missing although postgresql is installed.")


def _user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _give(*places: Path) -> None:
    if os.geteuid() == 0:
        for place in places:
            os.chown(place, _user().pw_uid, _user().pw_gid)


if __name__ == "__main__":
    server = Postgres().start()
    try:
        print(server.url, flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
