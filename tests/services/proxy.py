"""A TCP proxy in front of a real service, for injecting real faults into its connections."""

from __future__ import annotations

import contextlib
import socket
import threading
from urllib.parse import urlsplit


class Proxy:
    """Stands between clients and the server of ``url``; its own ``url`` is the same with another address."""

    def __init__(self, url: str, address: str = "127.0.0.1") -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._listener = socket.create_server((address, 0))
        account = f"{parts.username}:{parts.password}@" if parts.username else ""
        port = self._listener.getsockname()[1]
        self.url = parts._replace(netloc=f"{account}{address}:{port}").geturl()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._lock = threading.Lock()
        self._refusing = False
        self._cut_at: int | None = None
        self._cut_answer = False
        self._answered = 0
        self.cut_done = threading.Event()
        """What ``cut_after`` was to do has happened."""
        self._muted = threading.Event()
        self.said = bytearray()
        """What the clients said, in the order of arrival."""
        self.swallowed = threading.Event()
        """Something that the server said was kept from its client."""
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break all connections; new ones are let in."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def cut_after(self, count: int, *, answers: bool = False) -> None:
        """Break the connection on which the clients, or with ``answers`` the server, say the ``count``-th byte from now
        on; that byte still passes, nothing after it does."""
        self.cut_done.clear()
        self._cut_answer = answers
        self._cut_at = (self._answered if answers else len(self.said)) + count

    def refuse(self) -> None:
        """Break all connections and every new one."""
        self._refusing = True
        self.cut()

    def mute(self) -> None:
        """Lose what the server says from now on; what its clients say goes on reaching it."""
        self.swallowed.clear()
        self._muted.set()

    def mend(self) -> None:
        """Let new connections live; those that were muted have lost their place and are broken."""
        self._refusing = False
        self._cut_at = None
        if self._muted.is_set():
            self.cut()
            self._muted.clear()

    def close(self) -> None:
        """Break everything and let go of the address."""
        self._listener.close()
        self.refuse()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._pairs.append((client, server))
                for ends in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=ends, daemon=True).start()
                if self._refusing:
                    self.cut()

    def _pump(self, source: socket.socket, sink: socket.socket, from_server: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if from_server and self._muted.is_set():
                    self.swallowed.set()
                    continue
                if from_server:
                    before, self._answered = self._answered, self._answered + len(data)
                else:
                    before = len(self.said)
                    self.said += data
                at = self._cut_at
                if at is not None and from_server is self._cut_answer and before + len(data) >= at:
                    self._cut_at = None
                    sink.sendall(data[: max(0, at - before)])
                    self.cut_done.set()
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
