"""The decoder under a fuzzer that looks at coverage, for a fixed number of runs; ``make fuzz`` goes on for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RUNS = 10_000


@pytest.mark.skipif(sys.platform != "linux", reason="atheris comes for Linux alone")
def test_the_decoder_under_a_fuzzer(tmp_path: Path) -> None:
    options = [f"-runs={RUNS}", "-seed=1", "-max_len=4096", "-rss_limit_mb=1024", f"-artifact_prefix={tmp_path}/"]
    command = [sys.executable, "-m", "tests.security.fuzz_decoder", str(tmp_path / "corpus"), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
