"""Installs a Debian package when a service is missing, without a system-wide daemon that stays behind."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POLICY = Path("/usr/sbin/policy-rc.d")


class ServiceMissingError(RuntimeError):
    """A service that the tests need is neither there nor can it be installed or started."""


def install(package: str, service: str, variable: str) -> None:
    """``apt-get install`` it. Raises ServiceMissingError that says what to do instead."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ServiceMissingError(
            f"The tests need {service}. It is not installed, and only root on a Debian machine can have the tests "
            f"install it. Install the package {package}, or set {variable} to the URL of one that runs."
        )
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    with _no_daemons():
        # Without fresh lists the package may still be found.
        subprocess.run([*apt, "update"], env=environment, capture_output=True, stdin=subprocess.DEVNULL)
        done = subprocess.run(
            [*apt, "install", "-y", "--no-install-recommends", package],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    if done.returncode:
        raise ServiceMissingError(
            f"The tests need {service}, and installing the package {package} failed; "
            f"install it, or set {variable} to the URL of one that runs.\n{done.stdout[-2000:]}"
        )


@contextmanager
def _no_daemons() -> Iterator[None]:
    """Debian asks this file whether a package may start its daemon. One at a time: pytest's workers come at once."""
    with (Path(tempfile.gettempdir()) / "coflows-test-install").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _policy():
            yield


@contextmanager
def _policy() -> Iterator[None]:
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink(missing_ok=True)
