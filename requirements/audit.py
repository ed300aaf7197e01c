"""Ask whether anything that is locked has a known vulnerability; where nobody can be asked, say so and go on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

LOCKED = Path(__file__).parent / "dev.lock"
ANSWER, PATIENCE = 5, 30
"""Seconds for one answer, and for all of them."""
IGNORED: dict[str, str] = {}
"""Advisories that do not concern us, and why not."""


class Verdict(NamedTuple):
    """``ok`` is False only for what is known to be vulnerable."""

    ok: bool
    text: str


def verdict(report: str) -> Verdict:
    """What pip-audit's JSON means (pure). A package that it was told nothing about counts as not asked for."""
    try:
        found = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return Verdict(True, "pip-audit: skipped, the advisory service does not answer.")
    known = [one for one in found if "vulns" in one]
    if not known:
        return Verdict(True, "pip-audit: skipped, the advisory service knows none of the packages.")
    bad = [
        f"{one['name']} {one['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or '-'}"
        for one in known
        for hole in one["vulns"]
        if hole["id"] not in IGNORED
    ]
    if bad:
        return Verdict(False, "\n".join(["pip-audit: `make lock` locks newer versions.", *bad]))
    return Verdict(True, f"pip-audit: nothing is known of {len(known)} of {len(found)} packages.")


def audit() -> Verdict:
    """Run pip-audit over what is locked, for half a minute at most."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(LOCKED), "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner", "off", "--timeout", str(ANSWER), "--format", "json"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return verdict("")
    return verdict(done.stdout)


if __name__ == "__main__":
    found = audit()
    print(found.text)
    sys.exit(not found.ok)
