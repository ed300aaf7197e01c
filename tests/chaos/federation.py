"""``python -m tests.chaos.federation``: half of many registries and nodes are killed or cut off; how long it takes
after that until all registries say what the nodes offer."""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import httpx

from tests.registry_world import answers, eventually, run_process
from tests.services.network import Network

PORT = 3366
PATIENCE = 300.0


@dataclass
class Machine:
    """A service on a machine of its own; ``generation`` counts how often it was started, with other flows each time."""

    number: int
    url: str
    home: Path
    connect: list[str]
    flows: int = 0
    generation: int = 0
    process: BaseProcess | None = None
    offered: tuple[str, int] = field(default=("", 0))

    @property
    def registry(self) -> bool:
        """Whether it is one, or a node."""
        return self.flows == 0


class Federation:
    """A quarter of the services are registries, each connected to the one before and to one at random; the rest are
    nodes that share the flows, each connected to two registries. Needs root."""

    def __init__(self, folder: Path, services: int, flows: int, seed: int = 1) -> None:
        self.chance = random.Random(seed)
        self._network = Network(services)
        few = max(2, services // 4)
        urls = [f"http://{self._network.address(number)}:{PORT}" for number in range(1, services + 1)]
        self.machines = []
        for index, url in enumerate(urls):
            before = urls[: min(index, few)]
            connect = sorted({before[-1], self.chance.choice(before)}) if index and index < few else []
            connect = connect if index < few else self.chance.sample(before, min(2, few))
            share = 0 if index < few else max(1, flows // (services - few))
            self.machines.append(Machine(index + 1, url, folder / str(index), connect, share))
        self._http = httpx.Client(timeout=30)

    def start(self, machine: Machine) -> None:
        """Run it, with what it offers this time."""
        machine.generation += 1
        organization = f"{machine.number} generation {machine.generation}"
        machine.offered = (organization, machine.flows)
        flows = [
            {"name": f"Flow {number}", "tags": [f"tag{number % 50}"], "author": f"{number % 10 or machine.generation}"}
            for number in range(machine.flows)
        ]
        said: dict[str, Any] = {
            "registry": machine.registry,
            "feed": machine.registry,
            "retry": -1,
            "heartbeat": 1.0,
            "timeout": 5,
        }
        machine.process = run_process(
            machine.home,
            self._network.place(machine.number),
            loader={"flows": flows},
            url=machine.url,
            organization=organization,
            connect=machine.connect,
            reach=["private"],
            allow_plaintext=True,
            offline_after=4.0,
            **said,
        )

    def start_all(self) -> float:
        """Start all; gives the seconds until they agree."""
        begin = time.monotonic()
        for machine in self.machines:
            self.start(machine)
        self.agree()
        return time.monotonic() - begin

    def hurt(self) -> tuple[int, int]:
        """Half of the services: some are killed and started again with other flows, the others are cut off meanwhile.
        Gives how many of each, once the others have noticed who is cut off; ``heal`` ends it."""
        hurt = self.chance.sample(self.machines, len(self.machines) // 2)
        killed = [machine for machine in hurt if self.chance.random() < 0.5]
        apart = [machine for machine in hurt if machine not in killed]
        self._network.part(machine.number for machine in apart)
        for machine in killed:
            assert machine.process is not None
            machine.process.kill()
            machine.process.join()
        for machine in killed:
            self.start(machine)
        for machine in killed:
            eventually(lambda url=machine.url: answers(url), machine.url)  # type: ignore[misc]
        for machine in self.machines:
            if machine.registry and machine not in hurt:
                eventually(lambda url=machine.url: self._missed(url, apart), f"who is cut off, at {machine.url}")  # type: ignore[misc]
        return len(killed), len(apart)

    def _missed(self, url: str, apart: list[Machine]) -> bool:
        """Whether a registry on this side takes all of those for offline."""
        nodes = self._http.get(f"{url}/map").json()["nodes"]
        return {node["url"] for node in nodes if node["status"] == "offline"} >= {machine.url for machine in apart}

    def heal(self) -> float:
        """End what was done; gives the seconds until all registries say what the nodes offer."""
        self._network.part([])
        begin = time.monotonic()
        self.agree()
        return time.monotonic() - begin

    def agree(self) -> None:
        """Wait until all registries say what all services offer."""
        offered = {machine.url: machine.offered for machine in self.machines}
        for machine in self.machines:
            if machine.registry:
                eventually(lambda url=machine.url: self._said(url) == offered, machine.url, PATIENCE)  # type: ignore[misc]

    def _said(self, url: str) -> dict[str, tuple[str, int]]:
        try:
            nodes = self._http.get(f"{url}/map").json()["nodes"]
            total = self._http.get(f"{url}/flows?pp=1").json()["total"]
        except httpx.TransportError:
            return {}
        said = {node["url"]: (node["organization"], node["flows"]) for node in nodes if node["status"] == "online"}
        return said if total == sum(flows for _, flows in said.values()) else {}

    def close(self) -> None:
        """End all."""
        for machine in self.machines:
            if machine.process is not None:
                machine.process.kill()
                machine.process.join()
        self._http.close()
        self._network.close()


def main() -> None:
    """Print a line for each size."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.federation")
    parser.add_argument("--services", type=int, action="append", help="how many; may be given several times")
    parser.add_argument("--flows", type=int, default=10_000, help="of 20 services; less of fewer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    for services in given.services or [5, 10, 20]:
        flows = given.flows * services // 20
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as exit_stack:
            federation = Federation(Path(folder), services, flows, given.seed)
            exit_stack.callback(federation.close)
            begun = federation.start_all()
            print(f"{services} services, {flows} flows: agree {begun:.1f} s after their start", flush=True)
            times = []
            for _ in range(given.rounds):
                killed, apart = federation.hurt()
                times.append(federation.heal())
                print(f"  {killed} killed, {apart} cut off: agree {times[-1]:.1f} s after that", flush=True)
            print(f"  median {statistics.median(times):.1f} s, longest {max(times):.1f} s", flush=True)


if __name__ == "__main__":
    main()
