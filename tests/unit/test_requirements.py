"""What is locked is what pyproject.toml asks for, with hashes; what an audit and an SBOM make of it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.audit import verdict

ROOT = Path(__file__).parents[2]
LOCKS = ("runtime.lock", "dev.lock")
LINE = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: ; [^\\]*)? \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M)


def locked(name: str) -> dict[str, set[str]]:
    """The versions of each package; the file has nothing else in it."""
    text = (ROOT / "requirements" / name).read_text()
    assert LINE.sub("", text) == ""
    found: dict[str, set[str]] = {}
    for package, version, _ in LINE.findall(text):
        found.setdefault(canonicalize_name(package), set()).add(version)
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_all_that_is_asked_for_is_locked_in_a_version_that_was_asked_for(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    if name == "dev.lock":
        extras = project["project"]["optional-dependencies"]
        asked += [*extras["dev"], *extras["postgres"], *extras["bench"]]
    found = locked(name)
    for requirement in map(Requirement, asked):
        if requirement.name != "coflows":
            versions = found[canonicalize_name(requirement.name)]
            assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_users_and_developers_have_the_same_versions() -> None:
    runtime, dev = map(locked, LOCKS)
    assert all(dev[package] == versions for package, versions in runtime.items())


@pytest.mark.parametrize("report", ["", "no JSON", "[]", "{}", '{"dependencies": [{"name": "a", "skip_reason": "?"}]}'])
def test_an_audit_that_nobody_answers_is_skipped_and_says_so(report: str) -> None:
    assert verdict(report).ok and "skipped" in verdict(report).text


def test_an_audit_fails_over_what_is_known_to_be_vulnerable() -> None:
    well = {"name": "a", "version": "1", "vulns": []}
    ill = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
    assert verdict(json.dumps({"dependencies": [well]})) == (True, "pip-audit: nothing is known of 1 of 1 packages.")
    found = verdict(json.dumps({"dependencies": [well, ill]}))
    assert not found.ok and "b 2: PYSEC-1, mended in 3" in found.text


def test_the_sbom_names_what_a_release_is_made_of(tmp_path: Path) -> None:
    makefile = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    command = re.search(r"^\t\$\(BIN\)/cyclonedx-py (.*)$", makefile, re.M)
    assert command is not None
    words = command[1].replace("dist/coflows.cdx.json", str(tmp_path / "sbom")).split()
    subprocess.run([sys.executable, "-m", "cyclonedx_py", *words], cwd=ROOT, check=True, capture_output=True)
    sbom = json.loads((tmp_path / "sbom").read_text())
    assert sbom["bomFormat"] == "CycloneDX" and sbom["metadata"]["component"]["name"] == "coflows"
    named = {(canonicalize_name(one["name"]), one["version"]) for one in sbom["components"]}
    assert named == {(package, version) for package, versions in locked("runtime.lock").items() for version in versions}
