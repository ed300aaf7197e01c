"""What hostile msgpack makes a worker take in memory, measured at a real process."""

from __future__ import annotations

import struct
import time
from pathlib import Path
from typing import Any

from coflows import Client, connect
from coflows.broker.topology import dispatch_queue, door_queue
from coflows.codec.wire import MAX_ITEMS, encode
from coflows.errors import CoflowsError
from coflows.identity.sealing import Item, seal_items
from coflows.model.calls import Call
from coflows.model.messages import new_message_id
from coflows.model.wire import Fetch, FetchItem
from coflows.serving import get_flow_instance, serve_flow
from tests.security.operator import TIMEOUT
from tests.worker_processes import WorkerProcesses

TOTAL = 16 * 2**20
MOST = 100 * 2**20
POINT = "coflows_dispatch"


def kilobytes(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(field)))


def listed(count: int, inner: bytes) -> bytes:
    return b"\xdd" + struct.pack(">I", count) + inner * count


def hostile(flow_id: str) -> list[bytes]:
    """Payloads for a dispatch queue, about a megabyte each or small and many; the last ones are taken."""
    call: dict[str, Any] = Call(flow_id, {}).to_dict()
    before = encode(call)[:-1]  # Its data comes last, and is an empty dict.
    assert encode(call)[-1:] == b"\x80"
    full = MAX_ITEMS - 2 * len(call)
    return [
        before + b"\x81\xa1x" + listed(2**20, b"\x90"),
        before + b"\x81\xa1x" + listed(2**18, b"\x81\xa0\x80"),
        before + b"\x81\xa1x" + b"\xdd\x00\x03\x0d\x40" * 1000,
        before + b"\x81\xa1x" + b"\x91" * 2**20,
        before + b"\x81\xa1x" + b"\xdd\x00\x03\x0d\x40" * (2**20 // 5),
        before + b"\x81\xa1x" + listed(full // 2, b"\x81\xa0\x80"),
        before + b"\x81\xa1x" + listed(full, b"\x90"),
    ]


def test_sixteen_megabytes_of_hostile_msgpack(worker_processes: WorkerProcesses) -> None:
    with connect("owner") as owner, connect("caller") as caller:
        serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
        worker = worker_processes.owners()
        flow = get_flow_instance(caller, "counter", owner.user_id)
        assert flow.ask({}, TIMEOUT) == {"count": 1}
        with Path(f"/proc/{worker.pid}/clear_refs").open("w") as refs:
            refs.write("5")  # The peak is that of from now on.
        before = kilobytes(worker.pid, "VmRSS")
        sent = flood(caller, owner, flow.get_instance_id(), flow.address.partition)
        assert sent >= TOTAL
        assert flow.ask({}, 100)["count"] > 1, "the worker lives on"
        get_flow_instance(caller, "counter", owner.user_id)
        grown = (kilobytes(worker.pid, "VmHWM") - before) * 1024
    print(f"{sent / 2**20:.1f} MiB of hostile msgpack: {grown / 2**20:.0f} MiB more")
    assert grown < MOST


def flood(caller: Client, owner: Client, flow_id: str, partition: int | None) -> int:
    """All kinds in turn, to the instance's queue and the door; gives how many bytes."""
    sent = 0
    inbox = dispatch_queue(owner.user_id, POINT, partition).name
    door = door_queue(owner.user_id).name
    large = {"x": [{} for _ in range(MAX_ITEMS - 100)]}
    request: dict[str, Any] = Fetch(
        request_id=new_message_id(),
        session=caller.session.id,
        items=[FetchItem(key="a", flow_endpoint="counter", initial_state=large)],
        deadline=time.time() + 60,
    ).to_dict()
    while sent < TOTAL:
        request["request_id"] = new_message_id()
        for queue, payload in [*((inbox, one) for one in hostile(flow_id)), (door, encode(request))]:
            item = Item(new_message_id(), payload)
            body = seal_items(caller.identity, owner.user_id, int(time.time()) + 600, [item])
            try:
                caller.broker.publish(queue, body)
            except CoflowsError:
                raise AssertionError("the broker takes what a sender may send") from None
            sent += len(body)
    return sent
