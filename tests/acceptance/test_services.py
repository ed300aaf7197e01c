"""A service that the tests need and cannot have is an error that says what to do, never a silent skip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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
