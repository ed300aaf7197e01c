"""What a long turn sent gets out, also when its worker dies between its commit and the sending."""

from __future__ import annotations

import subprocess

from coflows import connect
from coflows.serving import get_flow_instance, serve_flow
from tests.waiting import until
from tests.worker_processes import WorkerProcesses

TIMEOUT = 60


def test_a_long_turns_messages_get_out(worker_processes: WorkerProcesses) -> None:
    def start(point: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        command = ("workers.dispatch_worker", "--user", "owner", "--dispatch-point", point)
        return worker_processes.start(*command, COFLOWS_FAILPOINTS=failpoint, COFLOWS_PARK_AFTER="0.2")

    doomed = start("tellers", "after_commit:1")
    start("told")
    with connect("owner") as owner:
        serve_flow(owner, "tests.flow_classes.Recorder", "told", "told")
        serve_flow(owner, "tests.flow_classes.LongTeller", "teller", "tellers")
        teller = get_flow_instance(owner, "teller")
        teller.send_message(teller.package_input_message({"seconds": 2.5, "number": 7}))
        assert doomed.wait(TIMEOUT) != 0
        assert len(owner.read_keys("parked:")) == 1, "it is still to be seen to"
        start("tellers")
        until(owner.store, "done:", lambda: len(owner.read_keys("done:")) == 2, "the message on its way")
        until(owner.store, "parked:", lambda: not owner.read_keys("parked:"), "a parked message")
        assert any(b"seen" in entry.value for entry in owner.store.scan("flows:told:"))
