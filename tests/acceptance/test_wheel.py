"""The wheel works in an empty environment, far from the clone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHIPPED = ["coflows", "workers", "flow_modules", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"]


def run(*command: str, cwd: Path) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("COFLOWS_", "PYTHON"))}
    done = subprocess.run(command, cwd=cwd, env={**kept, "COFLOWS_HOME": str(cwd)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_wheel(tmp_path: Path) -> None:
    source, outside = tmp_path / "source", tmp_path / "outside"
    source.mkdir()
    outside.mkdir()
    for name in SHIPPED:
        place = ROOT / name
        if place.is_dir():
            shutil.copytree(place, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, source / name)
    run(sys.executable, "-m", "build", "--outdir", str(tmp_path / "dist"), str(source), cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert list((tmp_path / "dist").glob("*.tar.gz"))
    venv.create(tmp_path / "venv")
    python = str(tmp_path / "venv" / "bin" / "python")
    install = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet")
    run(*install, str(wheel), cwd=outside)
    shown = run(str(tmp_path / "venv" / "bin" / "coflows"), "demo", cwd=outside)
    assert "1234" in shown and "4321" in shown
    program = (
        "from workers import run_dispatch_worker_thread, run_dispatch_worker_threads, run_get_instance_worker_thread\n"
        "from coflows.flows.loading import resolve_flow_class\n"
        "for name in ('ReverseNumberFlowModule.ReverseNumberSequentialFlow', 'CounterFlowModule.CounterFlow'):\n"
        "    print(resolve_flow_class(name).get_config()['name'])\n"
    )
    assert run(python, "-c", program, cwd=outside).split() == ["ReverseNumberTwice", "Counter"]
    run(*install, "--dry-run", f"{wheel}[postgres,dev,all]", cwd=outside)
