"""Workers that are killed in the middle: nothing is lost, nothing is applied twice, and the order holds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coflows import connect
from coflows.serving import get_flow_instance, serve_flow
from tests.worker_processes import StartWorker

ROOT = Path(__file__).parents[2]
TIMEOUT = 60


def test_kill_9_in_the_middle(start_worker: StartWorker) -> None:
    first, second = start_worker(), start_worker()
    with connect("owner") as owner, connect("caller") as caller:
        serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
        flows = [get_flow_instance(caller, "counter", user_id=owner.user_id) for _ in range(8)]
        futures = []
        for number in range(60):
            futures.append([flow.get_reply_future(flow.package_input_message({})) for flow in flows])
            if number == 20:
                first.kill()
            if number == 40:
                second.kill()
                start_worker()
        for number, row in enumerate(futures, 1):
            assert [future.get_data(TIMEOUT)["count"] for future in row] == [number] * len(flows)


def test_a_future_outlives_the_process_that_asked(start_worker: StartWorker) -> None:
    with connect("owner") as owner:
        serve_flow(owner, "CounterFlowModule.CounterFlow", "counter")
        user_id = owner.user_id
    worker = start_worker()
    program = (
        "import os, sys, coflows\n"
        "from coflows.serving import get_flow_instance\n"
        "cl = coflows.connect('caller')\n"
        f"flow = get_flow_instance(cl, 'counter', user_id={user_id!r})\n"
        "print(flow.get_reply_future(flow.package_input_message({})).key, flush=True)\n"
        "os._exit(1)\n"
    )
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert asked.stdout, asked.stderr
    with connect("caller") as caller:
        assert caller.reopen_future(asked.stdout.strip()).get_data(TIMEOUT) == {"count": 1}
        worker.kill()
        again = caller.reopen_future(asked.stdout.strip())
        start_worker()
        assert again.get_data(TIMEOUT) == {"count": 1}
