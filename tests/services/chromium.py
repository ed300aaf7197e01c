"""A real Chromium without a window, which the tests drive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, sync_playwright

from tests.services.install import install

VARIABLE = "COFLOWS_TEST_CHROMIUM"
NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]


def binary() -> str:
    """Where it is; installed when it is missing. Raises ServiceMissingError."""
    found = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        install("chromium", "Chromium", VARIABLE)
        found = shutil.which("chromium")
    assert found is not None
    return found


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser with an empty profile."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=binary(), args=QUIET, chromium_sandbox=os.geteuid() != 0)
        try:
            yield running
        finally:
            running.close()
