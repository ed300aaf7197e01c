"""Round trip and throughput of ``ask``: a client here, a worker in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coflows import connect
from coflows.identity.home import Home
from coflows.proxy import FlowProxy
from coflows.serving import get_flow_instance, serve_flow

FLOWS = {"stateless": ("EchoFlowModule.EchoFlow", True), "stateful": ("CounterFlowModule.CounterFlow", False)}
THREADS = 16


@contextmanager
def served(broker_url: str) -> Iterator[dict[str, FlowProxy]]:
    """Proxies of a stateless and a stateful flow, whose worker is another process."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"COFLOWS_HOME": folder, "COFLOWS_BROKER_URL": broker_url, "COFLOWS_LOG_LEVEL": "ERROR"}
        home = Home(Path(folder))
        home.create_user("owner")
        home.create_user("caller")
        with connect("owner", broker_url) as owner:
            for name, (flow_class, parallel) in FLOWS.items():
                serve_flow(owner, flow_class, name, parallel_dispatch=parallel)
            user_id = owner.user_id
        command = [sys.executable, "-m", "coflows.cli", "--as", "owner", "worker", "all"]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE)
        try:
            assert worker.stdout is not None
            worker.stdout.readline()
            with connect("caller", broker_url) as caller:
                yield {name: get_flow_instance(caller, name, user_id) for name in FLOWS}
        finally:
            worker.terminate()
            worker.wait()


def latencies(flow: FlowProxy, count: int) -> list[float]:
    """Seconds of ``count`` calls, one after the other."""
    times = []
    for number in range(count):
        begin = time.perf_counter()
        flow.ask({"number": number, "text": "x" * 60}, timeout=60)
        times.append(time.perf_counter() - begin)
    return times


def throughput(flow: FlowProxy, count: int, window: int) -> float:
    """Calls per second with ``window`` in flight."""
    free = threading.Semaphore(window)
    answered = threading.Semaphore(0)

    def work(numbers: range) -> None:
        for number in numbers:
            free.acquire()
            message = flow.package_input_message({"number": number, "text": "x" * 60})
            future = flow.get_reply_future(message)
            future.add_done_callback(lambda _future: (free.release(), answered.release()))

    begin = time.perf_counter()
    threads = [threading.Thread(target=work, args=(range(start, count, THREADS),)) for start in range(THREADS)]
    for thread in threads:
        thread.start()
    for _ in range(count):
        answered.acquire()
    for thread in threads:
        thread.join()
    return count / (time.perf_counter() - begin)
