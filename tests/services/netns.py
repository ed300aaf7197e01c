"""A network namespace whose only link to this one is a thread of the tests', which delays and drops real packets."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import heapq
import os
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

from tests.services.processes import reserve

CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, IFF_UP = 0x8914, 0x8916, 0x891C, 0x0001
SYN, SYN_ACK = 0x02, 0x12


class Namespace:
    """Ends with ``close``, and in any case with this process: neither the namespace nor its link has a name by which it
    could stay. Needs root. Whatever is started within ``inside`` (threads, processes) lives there.

    ``outward`` is what leaves the namespace, ``inward`` what comes to it.
    """

    def __init__(self, seed: int = 1) -> None:
        net, self._held = _free_net()
        base = int.from_bytes(socket.inet_aton(net))
        self.near, self.far = (socket.inet_ntoa((base + last).to_bytes(4)) for last in (1, 2))
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        near = _open_link(self.near)
        _libc("unshare", CLONE_NEWNET)
        try:
            self._there = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
            _up("lo")
            far = _open_link(self.far)
        finally:
            _libc("setns", self._home, CLONE_NEWNET)
        self.outward, self.inward = Direction(far, near, seed), Direction(near, far, -seed)
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="test-link", daemon=True)
        self._thread.start()

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        """The calling thread, and what it starts, is in the namespace."""
        _libc("setns", self._there, CLONE_NEWNET)
        try:
            yield
        finally:
            _libc("setns", self._home, CLONE_NEWNET)

    @property
    def place(self) -> str:
        """Where ``enter`` finds it, while it is there."""
        return f"/proc/{os.getpid()}/fd/{self._there}"

    def set(self, *, delay: float = 0.0, loss: float = 0.0) -> None:
        """Both directions: seconds that a packet takes, and how many of them get lost, from 0 to 1."""
        for direction in (self.outward, self.inward):
            direction.delay, direction.loss = delay, loss

    def close(self) -> None:
        """Take the link away; what is still inside has none from then on."""
        os.close(self._stopping)
        self._thread.join()
        for descriptor in (self._home, self._there, self._stop, self.outward.source, self.inward.source):
            os.close(descriptor)
        self._held.close()

    def _carry(self) -> None:
        directions = {direction.source: direction for direction in (self.outward, self.inward)}
        while True:
            dues = [direction.due for direction in directions.values() if direction.due is not None]
            wait = None if not dues else max(0.0, min(dues) - time.monotonic())
            ready, _, _ = select.select([self._stop, *directions], [], [], wait)
            if self._stop in ready:
                return
            for source in ready:
                directions[source].take()
            for direction in directions.values():
                direction.give()


def enter(place: str) -> None:
    """The calling thread, and what it starts, lives in a namespace of another process from now on."""
    there = os.open(place, os.O_RDONLY)
    _libc("setns", there, CLONE_NEWNET)
    os.close(there)


class Direction:
    """One way of the link. ``silent``: every packet is dropped, as by a broken line or a firewall that forgot.
    ``lost`` counts what was dropped; ``callers`` are the ports from which TCP connections were asked for."""

    def __init__(self, source: int, sink: int, seed: int) -> None:
        self.source = source
        self.delay = self.loss = 0.0
        self.silent = False
        self.lost = 0
        self.callers: set[int] = set()
        self._sink = sink
        self._dice = random.Random(seed)
        self._packets: list[tuple[float, int, bytes]] = []
        self._count = 0

    @property
    def due(self) -> float | None:
        """When the next packet arrives."""
        return self._packets[0][0] if self._packets else None

    def take(self) -> None:
        """A packet left."""
        packet = os.read(self.source, 65536)
        if packet[0] == 0x45 and packet[9] == socket.IPPROTO_TCP and packet[33] & SYN_ACK == SYN:
            self.callers.add(int.from_bytes(packet[20:22]))
        if self.silent or self._dice.random() < self.loss:
            self.lost += 1
            return
        self._count += 1
        heapq.heappush(self._packets, (time.monotonic() + self.delay, self._count, packet))

    def give(self) -> None:
        """Deliver what has arrived by now."""
        while self._packets and self._packets[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):
                os.write(self._sink, heapq.heappop(self._packets)[2])


def _free_net() -> tuple[str, socket.socket]:
    """Four addresses that no other tests have, and what holds them. They are for tests of networks only."""
    while True:
        net = f"198.18.{random.randint(0, 255)}.{4 * random.randint(0, 63)}"
        held = reserve(f"net-{net}")
        if held is not None:
            return net, held


def _open_link(address: str, mask: str = "255.255.255.252") -> int:
    """A device of the calling thread's namespace that gives its packets to who reads the descriptor."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    made = fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TUN | IFF_NO_PI))
    name = made[:16].rstrip(b"\0").decode()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for request, value in ((SIOCSIFADDR, address), (SIOCSIFNETMASK, mask)):
            sockaddr = struct.pack("HH4s8x", socket.AF_INET, 0, socket.inet_aton(value))
            fcntl.ioctl(control, request, struct.pack("16s16s8x", name.encode(), sockaddr))
    _up(name)
    return descriptor


def _up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), IFF_UP))


def _libc(call: str, *arguments: int) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), call)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)} (network namespaces need root)")
