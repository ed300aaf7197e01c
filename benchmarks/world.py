"""A world to measure CoFlows in: an owner whose worker is a process, and a caller whose session is another."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.contest import Pids
from benchmarks.processes import Child, listening
from coflows import Client, connect
from coflows.codec.wire import encode
from coflows.endpoints import partitions_of, read
from coflows.identity.home import Home
from coflows.instances import find_instance, instance_keys
from coflows.model.address import InstanceAddress, partition_of
from coflows.serving import DISPATCH_POINT, get_flow_instance, serve_flow

CHUNK = 1000
OTHER_POINT = "elsewhere"
"""A dispatch point that no worker works off."""
ENDPOINTS = {
    "stateless": ("EchoFlowModule.EchoFlow", True, DISPATCH_POINT),
    "hot": ("CounterFlowModule.CounterFlow", False, DISPATCH_POINT),
    "many": ("CounterFlowModule.CounterFlow", False, DISPATCH_POINT),
    "sleeper": ("benchmarks.flows.Sleeper", True, DISPATCH_POINT),
    "busy": ("benchmarks.flows.Sleeper", False, DISPATCH_POINT),
    "waiting": ("CounterFlowModule.CounterFlow", False, OTHER_POINT),
}


class World:
    """Made by ``world``. ``worker`` and ``client`` are the processes."""

    def __init__(
        self, folder: Path, broker_url: str, store_url: str | None, instances: int, through: Sequence[str] = ()
    ) -> None:
        self.broker_url = broker_url
        self.store_url = store_url
        self.env = {**os.environ, "COFLOWS_HOME": str(folder), "COFLOWS_LOG_LEVEL": "ERROR"}
        self.env |= {"COFLOWS_BROKER_URL": broker_url, "COFLOWS_STORE_URL": store_url or "sqlite://"}
        self._folder = folder
        home = Home(folder)
        home.create_user("owner")
        home.create_user("caller")
        with self.connected("owner") as owner:
            for name, (flow_class, parallel, point) in ENDPOINTS.items():
                serve_flow(owner, flow_class, name, dispatch_point=point, parallel_dispatch=parallel)
            self.owner_id = owner.user_id
        self.worker = Child.python(*(through or ("-m",)), "coflows.cli", "--as", "owner", "worker", "all", env=self.env)
        try:
            with self.connected("caller") as caller, self.connected("owner") as owner:
                self.addresses = {name: [get_flow_instance(caller, name, self.owner_id).address] for name in ENDPOINTS}
                self.addresses["many"] += clone(owner, self.addresses["many"][0], instances - 1)
            places = folder / "addresses.json"
            places.write_text(
                json.dumps({name: [one.to_dict() for one in those] for name, those in self.addresses.items()})
            )
            self.client = Child.python(*(through or ("-m",)), "benchmarks.calls", str(places), env=self.env)
        except BaseException:
            self.worker.close()
            raise

    @property
    def roles(self) -> Mapping[str, Pids]:
        """Whose CPU time is counted."""
        servers = {"broker": self.broker_url, "store": self.store_url or ""}
        return {
            "worker": lambda: [self.worker.pid],
            **{
                role: lambda url=url: listening(url)
                for role, url in servers.items()
                if not url.startswith(("embedded", "sqlite")) and url
            },
        }

    @contextmanager
    def connected(self, user: str) -> Iterator[Client]:
        """A session in this process."""
        before = os.environ.copy()
        os.environ.update(self.env)
        try:
            with connect(user, self.broker_url, self.store_url) as cl:
                yield cl
        finally:
            os.environ.clear()
            os.environ.update(before)

    def close(self) -> None:
        """End both processes."""
        self.client.close()
        self.worker.close()


@contextmanager
def world(
    broker_url: str, store_url: str | None = None, instances: int = 1000, through: Sequence[str] = ()
) -> Iterator[World]:
    """An owner who serves ``ENDPOINTS`` and whose caller holds ``instances`` of the endpoint ``many``; both processes
    run ``through`` these words to Python, if any."""
    with ExitStack() as exit_stack:
        folder = exit_stack.enter_context(tempfile.TemporaryDirectory(prefix="coflows-benchmark-"))
        made = World(Path(folder), broker_url, store_url, instances, through)
        exit_stack.callback(made.close)
        yield made


def clone(owner: Client, address: InstanceAddress, count: int, label: int = 0) -> list[InstanceAddress]:
    """Mount ``count`` more instances like the one at ``address``, straight in the store: fetching them one by one is
    what other benchmarks measure. Calls with other labels mount others."""
    store = owner.store
    found = find_instance(store, address.flow_id)
    assert found is not None
    keys = [key for key in instance_keys(store, found) if not key.startswith(("done:", "order:"))]
    rows = {key: entry.value for key, entry in store.get_many(keys).items()}
    init = found.path.key("init")
    record = read(rows.pop(init))
    points = partitions_of(store, address.dispatch_point) or 1
    clones: list[InstanceAddress] = []
    for first in range(0, count, CHUNK):
        writes: dict[str, bytes] = {}
        for number in range(first, min(first + CHUNK, count)):
            flow_id = f"{label:08x}-0000-0000-0000-{number:012x}"
            partition = None if address.partition is None else partition_of(flow_id, points)
            one = replace(address, flow_id=flow_id, partition=partition)
            writes |= {key.replace(address.flow_id, flow_id): value for key, value in rows.items()}
            writes[init.replace(address.flow_id, flow_id)] = encode({**record, "address": one.to_dict()})
            clones.append(one)
        store.commit(writes)
    return clones
