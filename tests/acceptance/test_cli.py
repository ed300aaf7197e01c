"""The command line, as processes on one machine with no broker installed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from coflows.cli.app import build

Run = Callable[..., subprocess.CompletedProcess[str]]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("COFLOWS_")}
    return {**kept, "COFLOWS_HOME": str(tmp_path / "home"), "COLUMNS": "100", "NO_COLOR": "1"}


@pytest.fixture
def coflows(environment: dict[str, str], tmp_path: Path) -> Run:
    def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "coflows.cli", *words]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start(*command: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline().startswith("Ready")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_two_terminals(coflows: Run, worker: Callable[..., subprocess.Popen[str]]) -> None:
    user_id = coflows("user", "create", "alice").stdout.strip()
    assert coflows("user", "show", "alice").stdout.strip() == user_id
    assert json.loads(coflows("user", "list", "--json").stdout) == [{"name": "alice", "user_id": user_id}]
    coflows("serve", "CounterFlowModule.CounterFlow", "counter", "--singleton")
    assert json.loads(coflows("flows", "--json").stdout)[0]["endpoint"] == "counter"
    terminal = worker("coflows.cli", "worker", "all")
    assert json.loads(coflows("call", "counter", "--data", "{}").stdout) == {"count": 1}
    coflows("user", "create", "bob")
    called = coflows("--as", "bob", "call", "counter", "--user", user_id, "--data", '{"a": 1}')
    assert json.loads(called.stdout) == {"count": 2}
    failed = coflows("--as", "bob", "call", "counter", "--user", user_id, "--data", '{"fail": true}', code=9)
    assert "asked to fail" in failed.stderr
    assert "Traceback" not in failed.stderr, "nobody else sees the code"
    own = ("call", "counter", "--as", "alice", "--data", '{"fail": true}')
    told = coflows(*own, code=9).stderr
    assert "Traceback" not in told and "-v shows the traceback." in told and "-v shows" not in failed.stderr
    assert "in run\n" in coflows(*own, "-v", code=9).stderr
    assert "in run\n" in json.loads(coflows(*own, "--json", code=9).stderr)["error"]["remote_traceback"]
    instances = json.loads(coflows("instances", "--as", "alice", "--json").stdout)
    assert [one["endpoint"] for one in instances] == ["counter"]
    assert "counter/" in coflows("tree", "--as", "alice").stdout
    terminal.send_signal(signal.SIGTERM)
    assert terminal.wait(60) == 0


def test_flow_modules(coflows: Run, worker: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    """`call` finds what `serve` found: in the folder it is run in, or the one it is given."""
    coflows("user", "create", "alice")
    for folder in ("mine", "elsewhere/theirs"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "tally.py").write_text(
            "from coflows import AtomicFlow\n"
            "class Tally(AtomicFlow):\n"
            "    default_config = {'name': 'Tally', 'description': 'Tells where it is.'}\n"
            "    def run(self, input_message):\n"
            "        return {'at': __name__}\n"
        )
    there = ("--flow-modules", str(tmp_path / "elsewhere"))
    refused = coflows("serve", "theirs.tally.Tally", "theirs", code=6).stderr
    assert "--flow-modules" in refused and "COFLOWS_FLOW_MODULES" in refused
    coflows("serve", "mine.tally.Tally", "mine")
    coflows("serve", "theirs.tally.Tally", "theirs", *there)
    worker("coflows.cli", "worker", "all", *there)
    assert json.loads(coflows("call", "mine").stdout) == {"at": "mine.tally"}
    assert json.loads(coflows("call", "theirs", *there).stdout) == {"at": "theirs.tally"}


def test_who_is_called(coflows: Run, worker: Callable[..., subprocess.Popen[str]]) -> None:
    for name in ("alice", "bob"):
        coflows("user", "create", name)
    assert "--as NAME" in coflows("flows", code=2).stderr
    served = coflows("serve", "CounterFlowModule.CounterFlow", "counter", "--as", "alice").stdout
    assert "No dispatch worker is there yet: `coflows worker all`." in served
    assert "--user ID" in coflows("call", "counter", "--as", "bob", code=7).stderr
    refused = coflows("call", "counter", "--as", "alice", "--timeout", "0.3", code=10).stderr
    assert "coflows worker all" in refused and "future.key" not in refused
    worker("coflows.cli", "worker", "all", "--as", "alice")
    ask = ("--as", "bob", "call", "counter", "--user", "alice")
    again = ("serve", "CounterFlowModule.CounterFlow", "counter", "--as", "alice")
    assert "only its quota was set" in coflows(*again, "--quota", "instances=1", "--quota", "messages=none").stdout
    assert "'calls'" in coflows(*again, "--quota", "calls=1", code=2).stderr
    assert "--quota messages=10" in coflows(*again, "--quota", "many", code=2).stderr
    kept = coflows(*ask, "--keep").stderr.strip()
    assert "coflows instances --fetched" in coflows(*ask, code=13).stderr
    assert kept in coflows("instances", "--fetched", "--as", "bob").stdout
    assert "only its quota was set" in coflows(*again, "--quota", "instances=2").stdout
    assert json.loads(coflows("--as", "bob", "call", kept).stdout) == {"count": 2}
    assert json.loads(coflows("--as", "alice", "call", kept).stdout) == {"count": 3}
    assert json.loads(coflows(*ask).stdout) == {"count": 1}
    coflows("--as", "bob", "delete", kept)
    assert coflows("instances", "--fetched", "--as", "bob").stdout == "There are no instances.\n"
    coflows("--as", "bob", "call", kept, code=7)


def test_worker_modules(coflows: Run, worker: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    user_id = coflows("user", "create", "alice").stdout.strip()
    coflows("user", "create", "bob")
    (tmp_path / "my_flows.py").write_text(
        "from coflows import AtomicFlow\n"
        "class Mine(AtomicFlow):\n"
        "    default_config = {'name': 'Mine', 'description': 'My own.'}\n"
        "    def run(self, input_message):\n"
        "        return {'secret': len(self.secrets['KEY'])}\n"
    )
    secrets = tmp_path / "secrets.env"
    secrets.write_text("KEY=12345\n")
    secrets.chmod(0o600)
    coflows("serve", "my_flows.Mine", "mine", "--as", "alice")
    worker("workers.dispatch_worker", "--user", "alice", "--secrets", str(secrets))
    worker("workers.get_instance_worker", "--user", "alice")
    called = coflows("call", "mine", "--user", user_id, "--as", "bob", "--json")
    assert json.loads(called.stdout) == {"secret": 5}


@pytest.mark.parametrize("module", ["dispatch_worker", "get_instance_worker", "executor"])
def test_a_worker_starts_without_a_warning(module: str, environment: dict[str, str]) -> None:
    command = [sys.executable, "-W", "error", "-m", f"workers.{module}", "--help"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_doctor(coflows: Run) -> None:
    coflows("doctor", code=2)
    coflows("user", "create", "alice")
    checks = json.loads(coflows("doctor", "--json").stdout)
    assert [(check["check"], check["ok"]) for check in checks] == [
        (name, True) for name in ("keys", "store", "broker", "clock")
    ]
    broken = coflows("doctor", "--broker", "amqp://guest:geheim@127.0.0.1:1/", code=4)
    assert "Nothing answers" in broken.stdout and "geheim" not in broken.stdout + broken.stderr


def test_doctor_looks_for_workers(coflows: Run, worker: Callable[..., subprocess.Popen[str]]) -> None:
    coflows("user", "create", "alice")
    coflows("serve", "EchoFlowModule.EchoFlow", "echo")

    def text(code: int) -> str:
        checks = json.loads(coflows("doctor", "--json", code=code).stdout)
        return next(str(check["text"]) for check in checks if check["check"] == "workers")

    told = text(1)
    assert "no dispatch worker for 'coflows_dispatch' (nobody answers at echo)" in told
    assert "no get_instance worker" in told and "coflows worker all" in told
    worker("workers.dispatch_worker", "--user", "alice")
    told = text(1)
    assert "no dispatch worker" not in told and "no get_instance worker" in told
    worker("workers.get_instance_worker", "--user", "alice")
    assert "1 endpoint served, and workers are there" in text(0)


def test_doctor_knows_colonies(coflows: Run, worker: Callable[..., subprocess.Popen[str]]) -> None:
    coflows("user", "create", "alice")
    coflows("colony", "add", "test")
    told = coflows("doctor", code=1).stdout
    assert "python -m workers.executor --colony test" in told and "coflows worker all" not in told
    worker("workers.executor", "--colony", "test", "--type", "python")
    assert "workers are there" in coflows("doctor").stdout


def test_help_is_whole() -> None:
    """No line of a list of commands is cut off on a terminal of 80 columns."""
    groups = [get_command(build())]
    for group in groups:
        assert isinstance(group, TyperGroup)
        with group.make_context("coflows", [], resilient_parsing=True, terminal_width=80) as context:
            commands = group.get_help(context).partition("Commands:\n")[2].splitlines()
        assert commands and [line for line in commands if line.endswith("...")] == []
        groups += [one for one in group.commands.values() if isinstance(one, TyperGroup)]
    assert len(groups) > 5


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["call", "counter"], 7, "serves nothing under 'counter'"),
        (["call", "counter", "--data", "[1]"], 2, "JSON object"),
        (["serve", "No.Such", "x"], 6, "No"),
        (["serve", "flow_modules.CounterFlowModule", "x"], 6, "is a module"),
        (["serve", "EchoFlowModule.EchoFlow", "x", "--flow-modules", "nowhere"], 2, "nowhere is no folder"),
        (["serve", "EchoFlowModule.EchoFlow", "a:b"], 2, "Endpoint name"),
        (["flows", "--as", "nobody"], 3, "coflows user create nobody"),
        (["user", "create", "alice"], 3, "exists already"),
    ],
)
def test_errors_and_exit_codes(coflows: Run, words: list[str], code: int, text: str) -> None:
    coflows("user", "create", "alice")
    assert text in coflows(*words, code=code).stderr
    error = json.loads(coflows(*words, "--json", code=code).stderr)["error"]
    assert text in error["message"] + " " + error["hint"]


def test_unserve_and_delete(coflows: Run) -> None:
    coflows("user", "create", "alice")
    coflows("serve", "EchoFlowModule.EchoFlow", "echo")
    assert json.loads(coflows("unserve", "echo", "--json").stdout) == {"unserved": "echo", "was_served": True}
    assert "unserved" in coflows("flows").stdout
    coflows("delete", "echo")
    assert coflows("flows", "--json").stdout.strip() == "[]"


def test_demo(coflows: Run) -> None:
    shown = coflows("demo").stdout
    assert "{'output_number': 1234}" in shown and "{'output_number': 4321}" in shown
    assert "reverse_number_atomic/" in shown and "reverse_number_sequential/" in shown


def test_keys_are_private(coflows: Run, tmp_path: Path) -> None:
    coflows("user", "create", "alice")
    key = tmp_path / "home" / "users" / "alice" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o644)
    assert "chmod 600" in coflows("serve", "EchoFlowModule.EchoFlow", "echo", "--as", "alice", code=3).stderr


def test_dead_letters(coflows: Run, worker: Callable[..., subprocess.Popen[str]], environment: dict[str, str]) -> None:
    coflows("user", "create", "alice")
    coflows("serve", "CounterFlowModule.CounterFlow", "counter")
    assert coflows("dlq", "list").stdout.strip() == "There are no dead letters."
    program = (
        "import coflows\n"
        "from coflows.broker.topology import dispatch_queue\n"
        "cl = coflows.connect('alice')\n"
        "for body in (b'garbage', b'rubbish'):\n"
        "    cl.broker.publish(dispatch_queue(cl.user_id, 'coflows_dispatch', 0).name, body)\n"
        "cl.close()\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment, check=True, cwd=ROOT)
    worker("coflows.cli", "worker", "all")
    while len(letters := json.loads(coflows("dlq", "list", "--json").stdout)) < 2:
        continue  # Each look is a process; the worker has time enough.
    assert all("no envelope" in letter["reason"] for letter in letters)
    shown = json.loads(coflows("dlq", "show", letters[0]["id"], "--json").stdout)
    assert shown["size"] == 7 and shown["payload"] is None
    for letter in letters:
        coflows("dlq", "discard", letter["id"])
    assert json.loads(coflows("dlq", "list", "--json").stdout) == []
    assert "no dead letter" in coflows("dlq", "replay", letters[0]["id"], code=7).stderr


def test_workflows(
    coflows: Run, worker: Callable[..., subprocess.Popen[str]], environment: dict[str, str], tmp_path: Path
) -> None:
    coflows("user", "create", "alice")
    assert "coflows colony add" in coflows("workflow", "ps", code=2).stderr
    coflows("colony", "add", "test")
    assert coflows("colony", "list").stdout.split() == ["test"]
    assert "colony" not in coflows("flows").stdout
    assert "colony.test" in coflows("flows", "--internal").stdout
    functions = tmp_path / "sums.py"
    functions.write_text(
        "def give():\n    return 1, 2\ndef add(a, b):\n    return a + b\ndef bad():\n    raise ValueError('boom')\n"
    )
    assert "There is test." in coflows("workflow", "ps", "--colony", "tset", code=7).stderr
    assert "neither a user id nor a user" in coflows("colony", "allow", "test", "bob", code=2).stderr
    spec = tmp_path / "workflow.json"
    give = {"funcname": "give", "executortype": "sums"}
    add = {"funcname": "add", "executortype": "sums", "conditions": {"dependencies": ["give"]}}
    spec.write_text(json.dumps([give, add]))
    alone = coflows("workflow", "submit", "--spec", str(spec), "--timeout", "0.5", code=10).stderr
    assert "python -m workers.executor --colony test" in alone
    worker("workers.executor", "--colony", "test", "--type", "sums", "--functions", "sums")
    shown = coflows("workflow", "submit", "--spec", str(spec), "--wait")
    assert "PROCESSGRAPH ID" in shown.stdout and "SUCCESS" in shown.stdout and "2/2" in shown.stderr
    (listed,) = json.loads(coflows("workflow", "pss", "--json").stdout)
    graph = listed["processgraphid"]
    assert listed["state"] == "SUCCESS" and graph in coflows("workflow", "pss").stdout
    for option in ("--processgraphid", "--workflowid"):
        found = json.loads(coflows("workflow", "get", option, graph, "--json").stdout)
        assert [one["state"] for one in found["processes"]] == ["SUCCESS", "SUCCESS"]
    table = coflows("workflow", "get", "--processgraphid", graph).stdout
    assert [line for line in table.splitlines() if "\u2502 add " in line and "SUCCESS" in line]
    assert coflows("workflow", "get", "--workflowid", f"{graph}/add", "--wait").stdout.split() == ["SUCCESS", "3"]
    assert json.loads(coflows("workflow", "get", "--workflowid", f"{graph}/give", "--json").stdout)["output"] == [1, 2]
    assert "flowchart" in coflows("workflow", "graph", "--processgraphid", graph).stdout
    assert "<svg" in coflows("workflow", "graph", "--workflowid", graph, "--svg").stdout
    failing = tmp_path / "failing.yaml"
    failing.write_text("- {funcname: bad, executortype: sums, nodename: never}\n")
    failed = coflows("workflow", "submit", "--spec", str(failing), "--wait", code=9)
    assert "Step never failed: ValueError: boom" in failed.stderr
    for text, code, hint in (("steps: [a]", 2, "docs/workflows.md"), ("- {a: 1}", 6, "funcname")):
        failing.write_text(text)
        assert hint in coflows("workflow", "submit", "--spec", str(failing), code=code).stderr
    waiting = tmp_path / "waiting.yaml"
    waiting.write_text("- {funcname: f, executortype: nobody}\n")
    stuck = coflows("workflow", "submit", "--spec", str(waiting)).stdout.strip()
    assert stuck in coflows("workflow", "psw").stdout and stuck not in coflows("workflow", "ps").stdout
    assert "Cancel it first" in coflows("workflow", "remove", "--processgraphid", stuck, code=6).stderr
    told = coflows("workflow", "removeall").stdout
    assert "Removed 2 workflows." in told and f"Not removed: {stuck}: it is not over." in told
    coflows("workflow", "cancel", "--processgraphid", stuck)
    assert json.loads(coflows("workflow", "remove", "--processgraphid", stuck, "--json").stdout)["removed"] is True
    assert json.loads(coflows("workflow", "psf", "--json").stdout) == []
    assert "no process graph's id" in coflows("workflow", "get", "--processgraphid", "nonsense", code=2).stderr
