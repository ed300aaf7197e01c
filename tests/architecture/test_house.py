"""The rules of the house that a linter does not hold."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coflows
import workers

ROOT = Path(__file__).parents[2]
MODULES = sorted([*(ROOT / "coflows").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])
ALONE = {
    "pika": "coflows/broker/rabbitmq",
    "cloudpickle": "coflows/codec/code.py",
    "psycopg": "coflows/store/postgres",
    "pydantic_settings": "coflows/config.py",
    "pickle": "nowhere",
}


def imports(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    tree = ast.parse(path.read_text())
    assert (ast.get_docstring(tree) or "").strip(), "every module opens with a sentence"
    for library, place in ALONE.items():
        assert library not in imports(tree) or name.startswith(place), f"{library} belongs into {place}"
    reads = any(isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") for node in ast.walk(tree))
    assert not reads or name == "coflows/config.py", "the environment is read in config.py alone"
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"yaml.load", "pickle.loads", "eval", "exec"} & set(calls)


def test_public_names() -> None:
    assert set(coflows.__all__) == {
        *("Flow", "AtomicFlow", "CompositeFlow", "FlowMessage", "FlowFuture", "KeyInterface"),
        *("connect", "Client", "start_users"),
    }
    assert {"run_dispatch_worker_thread", "run_dispatch_worker_threads", "run_get_instance_worker_thread"} <= set(
        workers.__all__
    )


DRIVERS = {"pika", "psycopg", "cloudpickle", "pydantic_settings", "typer", "rich", "yaml"}
HEAVY = DRIVERS | {"asyncio", "ssl", "sqlite3", "pydantic", "nacl", "msgpack", "concurrent.futures", "inspect"}


@pytest.mark.parametrize(
    ("program", "without"),
    [
        ("import coflows", HEAVY),
        ("from coflows import *; import coflows.serving", DRIVERS | {"asyncio", "ssl", "sqlite3"}),
        ("import workers", DRIVERS),
        ("import coflows.cli.app; coflows.cli.app.run(['--help'])", HEAVY - {"typer", "inspect"}),
    ],
)
def test_what_is_not_needed_is_not_loaded(program: str, without: set[str]) -> None:
    """What starts the interpreter takes longer than all else that a command does; nor may an import connect."""
    told = f"import atexit, sys\natexit.register(lambda: print({without!r} & set(sys.modules), file=sys.stderr))\n"
    done = subprocess.run([sys.executable, "-c", told + program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr.strip() == "set()"


def test_every_public_name_is_there() -> None:
    assert [getattr(coflows, name).__name__ for name in coflows.__all__] == coflows.__all__
    assert set(coflows.__all__) <= set(dir(coflows))
