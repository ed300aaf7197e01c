"""Wakes the other processes of this machine that share a folder, at once and without polling."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import select
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

_MAX_SOCKET_PATH = 90
_NOBODY = (errno.ECONNREFUSED, errno.ENOENT)


class Doorbell:
    """A Unix datagram socket in ``directory/bells``. It says only that something happened: who is woken looks for
    himself. Whether somebody listens on it also tells whether its process lives, for the kernel closes it on kill -9.

    One thread waits; the other methods are thread-safe.
    """

    def __init__(self, directory: Path) -> None:
        self.id = secrets.token_hex(8)
        self._bells = _short(directory / "bells")
        self._own = str(self._bells / self.id)
        for bell in bells_in(directory):
            if not self.alive(bell):
                (self._bells / bell).unlink(missing_ok=True)
        self._socket = _socket()
        self._socket.bind(self._own)
        self._sender = _socket()
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)

    def wait(self, timeout: float) -> bool:
        """Return True when it was rung or woken since the last call, False after ``timeout`` seconds."""
        if not self._poll.poll(timeout * 1000):
            return False
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True

    def wake(self) -> None:
        """Let ``wait`` return."""
        _send(self._sender, self._own)

    def ring(self, bells: Iterable[str]) -> bool:
        """Wake the processes of these bells; whether all of them live."""
        dead = [bell for bell in bells if not _send(self._sender, f"{self._bells}/{bell}")]
        return not dead

    def alive(self, bell: str) -> bool:
        """Whether the process of that bell lives; it is not woken."""
        with _socket() as probe:
            try:
                probe.connect(f"{self._bells}/{bell}")
            except OSError as error:
                return error.errno not in _NOBODY
        return True

    def close(self) -> None:
        """Nobody waits any more. Idempotent."""
        self._socket.close()
        self._sender.close()
        Path(self._own).unlink(missing_ok=True)


def bells_in(directory: Path) -> list[str]:
    """The bells of a folder, of the living and of the dead."""
    try:
        return [entry.name for entry in os.scandir(directory / "bells")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def ring_all(directory: Path) -> None:
    """Ring all bells of a folder; remove those whose process is gone."""
    bells = _short(directory / "bells")
    with _socket() as sender:
        for name in bells_in(directory):
            if not _send(sender, f"{bells}/{name}"):
                (bells / name).unlink(missing_ok=True)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.setblocking(False)
    return made


def _send(sender: socket.socket, bell: str) -> bool:
    try:
        sender.sendto(b".", bell)
    except OSError as error:
        # A full buffer means that it is being woken anyway.
        return error.errno in (errno.EAGAIN, errno.ENOBUFS)
    return True


def _short(folder: Path) -> Path:
    """The folder, made; by a short name when its own is too long for a socket."""
    folder = folder.absolute()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if len(os.fsencode(folder)) <= _MAX_SOCKET_PATH - 17:
        return folder
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    names = f"coflows-{os.getuid()}-"
    link = Path(tempfile.gettempdir()) / f"{names}{digest}"
    if not link.is_symlink():
        _sweep(link.parent, names)
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    # Whose link it is may lead it elsewhere later.
    if not link.is_symlink() or link.readlink() != folder or link.lstat().st_uid != os.geteuid():
        raise OSError(errno.EEXIST, f"{link} is not the link to {folder} that it should be", str(link))
    return link


def _sweep(folder: Path, names: str) -> None:
    """Remove this user's links to folders that are gone; a process may be making its folder just now, and makes the
    link after it."""
    with contextlib.suppress(OSError):
        for link in folder.glob(f"{names}*"):
            if link.is_symlink() and not link.exists():
                link.unlink(missing_ok=True)
