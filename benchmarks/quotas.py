"""What one user's flood does to the calls of another: the ratio of their 99th percentiles, with and without it.

The processes are ``python -m benchmarks.quotas ROLE ADDRESSES``: the caller measures for as many seconds as each line
says, the attacker floods with what the line names until the next one.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.processes import Child
from benchmarks.report import Figure
from coflows import Client, FlowFuture, connect
from coflows.broker.topology import door_queue
from coflows.errors import CoflowsError
from coflows.identity.home import Home
from coflows.model.address import InstanceAddress
from coflows.model.messages import new_message_id
from coflows.model.wire import Fetch, FetchItem
from coflows.serving import get_flow_instance, serve_flow

COUNT = 100_000
"""Fetches, or small messages; one that is refused is followed by the next at once."""
UNHEARD = 20_000
"""Requests whose answers the attacker has not heard yet, and bytes of them below: his memory is not the question."""
UNHEARD_BYTES = 64 * 2**20
LARGE = 2**20 - 8192
PACE = 0.005
"""Seconds between two calls of who is measured."""
ATTACKS = {
    "fetches": f"{COUNT:,} fetches",
    "messages": f"{COUNT:,} messages to 10 instances",
    "large": "messages of 1 MiB",
    "shared": f"{COUNT:,} messages to the same singleton",
}


def measure(flows: list[Any], seconds: float) -> dict[str, float]:
    """Calls one at a time, to each flow in turn."""
    taken = []
    until = time.perf_counter() + seconds
    for flow in itertools.cycle(flows):
        begin = time.perf_counter()
        if begin > until:
            break
        flow.ask({"text": "x" * 60}, timeout=120)
        taken.append(time.perf_counter() - begin)
        time.sleep(PACE)
    taken.sort()
    return {"p50": taken[len(taken) // 2], "p99": taken[len(taken) * 99 // 100], "calls": len(taken)}


class Attacker:
    """Floods in a thread of its own, heeding nothing that it is told."""

    def __init__(self, cl: Client, owner_id: str, flows: Mapping[str, list[Any]]) -> None:
        self._cl = cl
        self._owner = owner_id
        self._flows = flows
        self._heard: Counter[str] = Counter()
        self._wait = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._room = threading.Semaphore(0)

    def begin(self, attack: str) -> None:
        """Flood until ``end``, or until all is sent."""
        self._heard.clear()
        self._stop.clear()
        self._room = threading.Semaphore(UNHEARD if attack != "large" else UNHEARD_BYTES // LARGE)
        self._thread = threading.Thread(target=self._flood, args=(attack,))
        self._thread.start()

    def end(self) -> dict[str, Any]:
        """What became of it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        return {**self._heard, "longest retry_after": self._wait}

    def _flood(self, attack: str) -> None:
        send: dict[str, Callable[[int], Any]] = {
            "fetches": self._fetch,
            "messages": lambda number: self._flows["own"][number % 10].submit({"text": "x" * 60}),
            "large": lambda number: self._flows["own"][number % 10].submit({"text": "x" * LARGE}),
            "shared": lambda _number: self._flows["shared"][0].submit({"text": "x" * 60}),
        }
        for number in range(COUNT) if attack != "large" else itertools.count():
            while not self._room.acquire(timeout=0.1):
                if self._stop.is_set():
                    return
            if self._stop.is_set():
                return
            send[attack](number).add_done_callback(self._hear)
            self._heard["sent"] += 1

    def _fetch(self, _number: int) -> Any:
        session, request_id = self._cl.session, new_message_id()
        items = [FetchItem(key="root", flow_endpoint="own")]
        fetch = Fetch(request_id=request_id, session=session.id, items=items, deadline=time.time() + 60)
        return session.request(door_queue(self._owner).name, self._owner, request_id, fetch)

    def _hear(self, future: Any) -> None:
        self._room.release()
        code, wait = "answered", None
        try:
            if isinstance(future, FlowFuture):
                future.try_get_data()
            elif (failure := future.result().failure) is not None:
                code, wait = failure["code"], failure["retry_after"]
        except CoflowsError as error:
            code, wait = error.code, error.retry_after
        self._heard[code] += 1
        self._wait = max(self._wait, wait or 0.0)


def figures(broker_url: str, *, quick: bool = False, rounds: int = 3) -> list[Figure]:
    """For each attack the others' 99th percentile with it, and its ratio to that without it just before."""
    seconds = 1.0 if quick else 8.0
    found = []
    with ExitStack() as exit_stack:
        caller, attacker = _world(exit_stack, broker_url)
        caller.ask({"seconds": seconds})
        for attack, text in ATTACKS.items():
            ratios, p99s, heard = [], [], {}
            for _ in range(1 if quick else rounds):
                before = caller.ask({"seconds": seconds})
                attacker.ask({"attack": attack})
                during = caller.ask({"seconds": seconds})
                heard = attacker.ask({"attack": None})
                caller.ask({"seconds": seconds / 2})  # What is left of the flood is worked off.
                ratios.append(during["p99"] / before["p99"])
                p99s.append(during["p99"])
                print(f"{attack}: {before} before, {during} during; {heard}", file=sys.stderr)
            against = "without it, at the same time"
            value, ratio = statistics.median(p99s) * 1e3, statistics.median(ratios)
            found.append(Figure(f"others' p99 beside {text} of one user", value, "ms", ratio, against, "under 2 x"))
    return found


def _world(exit_stack: ExitStack, broker_url: str) -> tuple[Child, Child]:
    folder = Path(exit_stack.enter_context(tempfile.TemporaryDirectory(prefix="coflows-benchmark-")))
    env = {**os.environ, "COFLOWS_HOME": str(folder), "COFLOWS_LOG_LEVEL": "ERROR", "COFLOWS_BROKER_URL": broker_url}
    for name in ("owner", "caller", "attacker"):
        Home(folder).create_user(name)
    before = os.environ.copy()
    os.environ.update(env)
    try:
        with connect("owner") as owner:
            serve_flow(owner, "CounterFlowModule.CounterFlow", "own")
            serve_flow(owner, "CounterFlowModule.CounterFlow", "shared", singleton=True)
            owner_id = owner.user_id
        worker = Child.python("-m", "coflows.cli", "--as", "owner", "worker", "all", env=env)
        exit_stack.callback(worker.close)
        children = []
        for role in ("caller", "attacker"):
            with connect(role) as cl:
                addresses = {"own": [get_flow_instance(cl, "own", owner_id).address.to_dict() for _ in range(10)]}
                addresses["shared"] = [get_flow_instance(cl, "shared", owner_id).address.to_dict()]
            place = folder / f"{role}.json"
            place.write_text(json.dumps({"owner": owner_id, "addresses": addresses}))
            children.append(Child.python("-m", "benchmarks.quotas", role, str(place), env=env))
            exit_stack.callback(children[-1].close)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return children[0], children[1]


def _child(role: str, place: Path) -> None:
    known = json.loads(place.read_text())
    with connect(role) as cl:
        flows = {
            name: [cl.proxy(InstanceAddress.from_dict(one)) for one in those]
            for name, those in known["addresses"].items()
        }
        if role == "attacker":
            os.nice(19)  # His computer is another one, and takes no processor from others.
        attacker = Attacker(cl, known["owner"], flows)
        print("ready", flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            answer: Mapping[str, Any] = {}
            if "seconds" in asked:
                answer = measure([*flows["own"], *flows["shared"]], asked["seconds"])
            elif asked["attack"] is None:
                answer = attacker.end()
            else:
                attacker.begin(asked["attack"])
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _child(sys.argv[1], Path(sys.argv[2]))
