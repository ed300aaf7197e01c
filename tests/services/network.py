"""Machines of a network that is a thread of the tests': each a network namespace, and any of them can be cut off."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import select
import socket
import threading
from collections.abc import Iterable

from tests.services.netns import CLONE_NEWNET, _libc, _open_link, _up
from tests.services.processes import reserve

MASK = "255.255.255.0"
OWN = 254


class Network:
    """Machines 1 to ``machines``, and this process as 254. Needs root; ends with ``close``, and with this process."""

    def __init__(self, machines: int) -> None:
        self._prefix, self._reserved = _free_net()
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._links = {OWN: _open_link(self.address(OWN), MASK)}
        self._spaces: dict[int, int] = {}
        for number in range(1, machines + 1):
            _libc("unshare", CLONE_NEWNET)
            try:
                self._spaces[number] = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
                _up("lo")
                self._links[number] = _open_link(self.address(number), MASK)
            finally:
                _libc("setns", self._home, CLONE_NEWNET)
        self._apart: frozenset[int] = frozenset()
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="test-network", daemon=True)
        self._thread.start()

    def address(self, machine: int) -> str:
        """Its IPv4 address."""
        return f"{self._prefix}.{machine}"

    def place(self, machine: int) -> str:
        """What ``enter`` takes, in any process of this machine's."""
        return f"/proc/{os.getpid()}/fd/{self._spaces[machine]}"

    def part(self, machines: Iterable[int]) -> None:
        """From now on no packet goes between these and the others, this process aside: it reaches all."""
        self._apart = frozenset(machines)

    def close(self) -> None:
        """Take all links away."""
        os.close(self._stopping)
        self._thread.join()
        self._reserved.close()
        for descriptor in (self._home, self._stop, *self._spaces.values(), *self._links.values()):
            os.close(descriptor)

    def _carry(self) -> None:
        numbers = {descriptor: number for number, descriptor in self._links.items()}
        prefix = socket.inet_aton(self.address(0))[:3]
        poll = select.poll()
        for descriptor in (self._stop, *numbers):
            poll.register(descriptor, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor == self._stop:
                    return
                packet = os.read(descriptor, 65536)
                source, sink = numbers[descriptor], packet[19]
                parted = (source in self._apart) != (sink in self._apart) and OWN not in (source, sink)
                if packet[0] >> 4 == 4 and packet[16:19] == prefix and sink in self._links and not parted:
                    with contextlib.suppress(OSError):
                        os.write(self._links[sink], packet)


def _free_net() -> tuple[str, socket.socket]:
    """What the addresses begin with, which no other tests have, and what holds them; for tests of networks only."""
    while True:
        prefix = f"198.19.{random.randint(0, 255)}"
        held = reserve(f"net-{prefix}")
        if held is not None:
            return prefix, held


def enter(place: str) -> None:
    """The calling process, which has one thread yet, is on that machine from now on."""
    descriptor = os.open(place, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(descriptor)
