"""What a long turn sent gets out, also when its worker dies between its commit and the sending."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coflows import connect
from coflows.identity.home import Home
from coflows.serving import get_flow_instance, serve_flow
from tests.waiting import until

ROOT = Path(__file__).parents[2]
TIMEOUT = 60
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(home: Path) -> Iterator[Start]:
    Home(home).create_user("owner")
    started: list[subprocess.Popen[bytes]] = []

    def start(point: str, failpoint: str = "") -> subprocess.Popen[bytes]:
        environment = {**os.environ, "COFLOWS_FAILPOINTS": failpoint, "COFLOWS_PARK_AFTER": "0.2"}
        command = [sys.executable, "-m", "workers.dispatch_worker", "--dispatch-point", point]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=ROOT)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline().startswith(b"Ready")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_a_long_turns_messages_get_out(start: Start) -> None:
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
