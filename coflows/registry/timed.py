"""Connections on which no request takes longer than its thread has, however slowly the other side answers."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterable
from typing import Any

import httpcore

_PART = 4096
"""Bytes written at once: who takes them slowly is waited for once for each."""


class Deadline(threading.local):
    """Until when this thread's request may take."""

    at = 0.0

    def left(self, most: float | None) -> float:
        """The seconds that are left, and ``most`` at most. Raises httpcore.ReadTimeout when there are none."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise httpcore.ReadTimeout("it takes too long")
        return left if most is None else min(left, most)


class TimedNetwork(httpcore.NetworkBackend):
    """Connects as httpcore does by itself."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._network = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to an address."""
        left = self._deadline.left(timeout)
        return _Timed(self._network.connect_tcp(host, port, left, local_address, socket_options), self._deadline)


class _Timed(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._deadline.left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), _PART):
            self._stream.write(buffer[start : start + _PART], self._deadline.left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Timed(
            self._stream.start_tls(ssl_context, server_hostname, self._deadline.left(timeout)), self._deadline
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
