"""Wakes the other processes of this machine that share a folder, at once and without polling."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
import select
import socket
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

TICK = 1.0
"""Seconds after which a bell rings by itself, so that the death of others is noticed."""
_MAX_SOCKET_PATH = 90


class Doorbell:
    """A Unix datagram socket in ``directory/bells``. It says only that something happened: who is woken looks for
    himself. Whether it answers also tells whether its process lives, for the kernel closes it on kill -9.

    ``on_ring`` is called from a thread of the bell's own, once for any number of rings that came meanwhile.
    Thread-safe.
    """

    def __init__(self, directory: Path, on_ring: Callable[[], None]) -> None:
        self.id = secrets.token_hex(8)
        self._bells = _short(directory / "bells")
        self._on_ring = on_ring
        self._closed = threading.Event()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(self._bells / self.id))
        self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sender.setblocking(False)
        self._thread = threading.Thread(target=self._listen, name="coflows-doorbell", daemon=True)
        self._thread.start()

    def ring(self) -> None:
        """Wake all the others."""
        ring(self._bells, self._sender, but=self.id)

    def alive(self, bell: str) -> bool:
        """Whether the process of that bell lives."""
        return bell == self.id or _send(self._sender, self._bells / bell)

    def close(self) -> None:
        """Stop; the callback is not called after this returns, unless it is what calls this. Idempotent."""
        if self._closed.is_set():
            return
        self._closed.set()
        _send(self._sender, self._bells / self.id)
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._socket.close()
        self._sender.close()
        (self._bells / self.id).unlink(missing_ok=True)

    def _listen(self) -> None:
        while not self._closed.is_set():
            if select.select([self._socket], [], [], TICK)[0]:
                self._drain()
            if not self._closed.is_set():
                try:
                    self._on_ring()
                except Exception:
                    logger.exception("What a bell woke failed.")

    def _drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self._socket.recv(1)


def ring(bells: Path, sender: socket.socket, but: str = "") -> None:
    """Ring all bells of a folder but one; remove those whose process is gone."""
    try:
        names = [bell.name for bell in bells.iterdir()]
    except FileNotFoundError:
        return
    for name in names:
        if name != but and not _send(sender, bells / name):
            (bells / name).unlink(missing_ok=True)


def _send(sender: socket.socket, bell: Path) -> bool:
    try:
        sender.sendto(b".", str(bell))
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
    link = Path(tempfile.gettempdir()) / f"coflows-{os.getuid()}-{digest}"
    with contextlib.suppress(FileExistsError):
        link.symlink_to(folder)
    if not link.is_symlink() or link.readlink() != folder:
        raise OSError(errno.EEXIST, f"{link} is not the link to {folder} that it should be", str(link))
    return link
