"""The benchmarks run and fill their table; no figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_quick_run_has_all_rows(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks", "--quick", "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "figures.json").read_text())
    assert [row["unit"] for row in rows] == ["ms", "calls/s", "ms", "calls/s", "ms", "ms", "ms", "ms"]
    assert all(row["value"] > 0 for row in rows)
    assert "stateful ask" in done.stdout and "import coflows" in done.stdout
