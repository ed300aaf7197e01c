"""What the tests need and cannot have is an error that says what to do, and what they start ends with them."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HANGING = """
import pathlib, subprocess, sys, time

def test_hangs():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    pathlib.Path(__file__).with_name("pid").write_text(str(child.pid))
    time.sleep(600)
"""


def test_a_service_that_cannot_be_installed_is_told() -> None:
    """As somebody who is not root."""
    program = (
        "import os\n"
        "from tests.services.install import ServiceMissingError, install\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: install('no-such-package', 'NoSuchService', 'COFLOWS_TEST_AMQP_URL')\n"
        "except ServiceMissingError as error: print('told:', error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("told:") and "no-such-package" in done.stdout, done.stdout + done.stderr


def test_a_process_of_a_test_that_hangs_ends_with_it(tmp_path: Path) -> None:
    """pytest-timeout ends pytest's worker without a word; what the test had started is ended, and the rest goes on."""
    hanging, fine = tmp_path / "test_hanging.py", tmp_path / "test_within.py"
    hanging.write_text(HANGING)
    fine.write_text("def test_fine(): pass\n")
    options = ["-p", "tests.conftest", "--rootdir", str(tmp_path), "-n", "1", "--timeout", "1"]
    command = [sys.executable, "-m", "pytest", *options, "--timeout-method", "thread", str(hanging), str(fine)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "time.sleep(600)" in done.stdout + done.stderr, "where it hung is told"
    assert "crashed while running" in done.stdout and "1 failed, 1 passed" in done.stdout
    try:
        child = os.pidfd_open(int((tmp_path / "pid").read_text()))
    except ProcessLookupError:
        return
    assert select.select([child], [], [], 30)[0], "the process is still there"
    os.close(child)
