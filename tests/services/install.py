"""Installs a Debian package when a service is missing, without leaving a system-wide daemon running."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


class ServiceMissingError(RuntimeError):
    """A service that the tests need is neither there nor can it be installed."""


def install(package: str, what_for: str) -> None:
    """``apt-get install`` it; raises ServiceMissingError that says what to do instead."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServiceMissingError(
            f"{what_for} is not installed, and this is not root on a Debian machine that could install it. "
            f"Install the package {package}, or set COFLOWS_TEST_AMQP_URL / COFLOWS_TEST_POSTGRES_URL."
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _no_daemons():
        fetch = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        for command in (["apt-get", "update", "-qq"], fetch):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
            if done.returncode and command[1] == "install":
                raise ServiceMissingError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Debian asks this file whether a package may start its daemon."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
