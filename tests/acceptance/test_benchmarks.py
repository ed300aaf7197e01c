"""The benchmarks run and fill their tables; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
