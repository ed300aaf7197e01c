"""Every code block of the README and of docs/ is executed; diagrams aside."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from coflows.cli.app import build
from tests.services.processes import free_port

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
MAKE_TEST = "make test\n"
"""What runs this test; running it again inside would never end."""


def blocks() -> list[tuple[str, str, str]]:
    found = []
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]):
        if path.exists():
            found += [(path.name, kind, text) for kind, text in BLOCK.findall(path.read_text())]
    return [(name, kind, text) for name, kind, text in found if kind != "mermaid" and text != MAKE_TEST]


@pytest.mark.parametrize(("name", "kind", "text"), blocks())
def test_code_block(name: str, kind: str, text: str, tmp_path: Path) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("COFLOWS_")}
    environment = {**kept, "COFLOWS_HOME": str(tmp_path / "home"), "PIP_NO_INPUT": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    if kind == "python":
        script = tmp_path / "block.py"
        script.write_text(text)
        command, folder = [sys.executable, str(script)], tmp_path
    else:
        assert kind == "bash", f"{name} has a block of {kind}, which nothing executes"
        text = text.replace("coflows worker all &\n", WAIT_FOR_WORKER)
        for port in set(re.findall(r"localhost:(\d+)", text)):
            text = text.replace(f"localhost:{port}", f"localhost:{free_port()}")  # Another test may have it.
        text = re.sub(r"^source .*\n", "", text, flags=re.M)
        command, folder = ["bash", "-m", "-e", "-o", "pipefail", "-c", text], ROOT
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode in (0, 143), done.stdout + done.stderr


WAIT_FOR_WORKER = """coflows worker all > "$COFLOWS_HOME/ready" &
until grep -q Ready "$COFLOWS_HOME/ready"; do read -rt 0.1 < <(:) || true; done
"""


def test_the_two_commands_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme and "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()


COMMAND = re.compile(r"(?:^|[`$|(] ?)coflows ([a-z-][^`\n]*)", re.M)
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
TEXTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "coflows").rglob("*.py")]


@pytest.mark.parametrize("path", [path for path in TEXTS if "coflows " in path.read_text()], ids=lambda path: path.name)
def test_commands_and_options_that_are_named_are_there(path: Path) -> None:
    """``coflows dlq list|show`` names two."""
    root = get_command(build())
    anywhere = {*options_of(root), "--help"}
    for line in COMMAND.findall(path.read_text()):
        words = [word.strip(".,:;?)\"'") for word in line.split() if not word.startswith("-")]
        for name in words[0].split("|") if words else ():
            command = named(root, name, line)
            for more in words[1].split("|") if len(words) > 1 and hasattr(command, "commands") else ():
                deeper = named(command, more, line)
                unknown = set(OPTION.findall(line)) - options_of(deeper) - anywhere
                assert not unknown, f"{line}: {unknown}"
            if not hasattr(command, "commands"):
                unknown = set(OPTION.findall(line)) - options_of(command) - anywhere
                assert not unknown, f"{line}: {unknown}"


def named(group: Any, name: str, line: str) -> Any:
    """The command of a group."""
    assert name in group.commands, f"{line}: there is no {name}"
    return group.commands[name]


def options_of(command: Any) -> set[str]:
    """The options that it takes."""
    return {name for one in command.params for name in (*one.opts, *one.secondary_opts)}


def test_every_command_and_option_says_what_it_is_for() -> None:
    left = [((), get_command(build()))]
    while left:
        words, command = left.pop()
        assert command.help or not words, words
        lacking = [one.name for one in command.params if one.opts[0].startswith("-") and not getattr(one, "help", None)]
        assert not lacking, (words, lacking)
        left += [((*words, name), one) for name, one in getattr(command, "commands", {}).items()]
