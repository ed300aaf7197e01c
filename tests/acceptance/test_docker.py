"""The container files: linted, and their commands exist. No Docker engine is needed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]


def test_the_dockerfile_is_clean() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([str(hadolint), str(ROOT / "docker" / "Dockerfile")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_the_dockerfile_copies_is_there() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    for line in re.findall(r"^COPY (.+) \S+$", text, re.M):
        for name in line.split():
            assert (ROOT / name).exists(), name


def test_compose_has_two_users_and_their_services() -> None:
    compose = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
    services = compose["services"]
    assert {"rabbitmq", "postgres", "alice", "bob", "demo"} == set(services)
    for name in ("alice", "bob", "demo"):
        assert set(services[name]["depends_on"]) == {"rabbitmq", "postgres"}
        assert services[name]["environment"]["COFLOWS_BROKER_URL"].startswith("amqp://")
    assert not any("ports" in service for service in services.values())


def test_its_commands_exist() -> None:
    compose = (ROOT / "docker" / "compose.yaml").read_text()
    found = re.findall(r"coflows (?:--as \w+ )?(user show|user create|serve|worker all)", compose)
    assert len(set(found)) == 4
    for command in (*set(found), "demo"):
        words = [sys.executable, "-m", "coflows.cli", *command.split(), "--help"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
