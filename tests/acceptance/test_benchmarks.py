"""The benchmarks run and fill their tables; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import trust
from benchmarks.unsealed import seal_plain, unsealed
from coflows import Client
from coflows.errors import EnvelopeError
from coflows.identity.sealing import open_envelope
from coflows.serving import get_flow_instance, serve_flow
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_quick_run_has_all_rows(tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("figures.json", "tables.md")}
    command = [sys.executable, "-m", "benchmarks", "--quick", "--plot", str(tmp_path)]
    command += ["--json", str(files["figures.json"]), "--markdown", str(files["tables.md"])]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, done.stderr
    found = json.loads(files["figures.json"].read_text())
    assert [row["name"] for row in found["comparisons"]] == [
        "embedded: stateless",
        "embedded: stateful, 1,000 instances",
        "embedded: stateful, one instance",
    ]
    samples = [sample for row in found["comparisons"] for sample in row["own"].values()]
    samples += [sample for row in found["burdens"] for sample in row["compared"]["own"].values()]
    assert len(samples) == 12
    for sample in samples:
        assert 0 < sample["p50"] <= sample["p99"] and sample["rate"] > 0
        assert set(sample["cpu"]) == {"client", "worker"}
    assert {figure["unit"] for figure in found["figures"]} == {"ms", "MB", "s"}
    assert all(figure["value"] > 0 for figure in found["figures"])
    assert "embedded: stateless" in files["tables.md"].read_text() and "import coflows" in done.stdout
    assert {path.suffix for path in tmp_path.glob("latency-over-throughput.*")} == {".svg", ".png"}
    assert all(path.stat().st_size > 10_000 for path in tmp_path.glob("latency-over-throughput.*"))


def test_the_cost_of_trust_is_measured_against_calls_that_are_not_sealed(users: Callable[..., list[Client]]) -> None:
    assert all(figure.value > 0 and figure.ratio for figure in trust.figures(0.01))
    with unsealed():
        owner, caller = users(2)
        run_dispatch_worker_thread(owner)
        run_get_instance_worker_thread(owner)
        serve_flow(owner, "EchoFlowModule.EchoFlow", "echo", parallel_dispatch=True)
        flow = get_flow_instance(caller, "echo", user_id=owner.user_id)
        assert flow.ask({"text": "hello"}, timeout=30)["text"] == "hello"
        with pytest.raises(EnvelopeError):
            open_envelope(owner.identity, seal_plain(caller.identity, owner.user_id, 2**31, ()), 0.0, 2**20)


def test_a_quick_run_of_the_workflows() -> None:
    command = [sys.executable, "-m", "benchmarks.workflows", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in ("fan-out and join", "grid", "local runs of empty steps"))


def test_a_quick_run_of_the_colonies() -> None:
    command = [sys.executable, "-m", "benchmarks.colonies", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    assert "CoFlows: chain" in done.stdout and "fan-out and join" in done.stdout
