"""The notebooks run cell by cell on both brokers, and show what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")
FIELDS = ["default_dispatch_point", "flow_class_name", "init", "parallel_dispatch", "singleton"]


@pytest.fixture(scope="session")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kernel that is this very interpreter."""
    prefix = tmp_path_factory.mktemp("kernels")
    command = [sys.executable, "-m", "ipykernel", "install", "--prefix", str(prefix), "--name", "python3"]
    subprocess.run(command, check=True, capture_output=True)
    return prefix / "share" / "jupyter"


@pytest.fixture
def execute(kernels: Path, broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("JUPYTER_PATH", str(kernels))
    monkeypatch.setenv("COFLOWS_BROKER_URL", broker_url)
    monkeypatch.setenv("COFLOWS_HOME", str(tmp_path / "home"))

    def run(name: str) -> list[str]:
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        client = NotebookClient(notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
        client.execute()
        return [shown(cell) for cell in notebook.cells if cell.cell_type == "code"]

    return run


def shown(cell: Any) -> str:
    """What a cell printed, and its value."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream" and output.name == "stdout":
            texts.append(output.text)
        elif "data" in output:
            texts.append(output.data.get("text/plain", ""))
    return COLOURS.sub("", "".join(texts))


def test_every_notebook_is_tested() -> None:
    assert {path.name for path in NOTEBOOKS.glob("*.ipynb")} == {
        "multiple_users.ipynb",
        "recursive_serve.ipynb",
        "registry.ipynb",
        "storage_and_cleanup.ipynb",
        "workflows.ipynb",
    }


def test_multiple_users(execute: Any) -> None:
    outputs = execute("multiple_users.ipynb")
    ids = [line.rpartition(" ")[2] for line in outputs[1].strip().splitlines()]
    assert outputs[3] == outputs[5] == "True"
    assert outputs[7] == "Data sent:\n {'id': 0, 'number': 1234} \n\nREPLY:\n {'output_number': 1234} \n\n"
    assert outputs[9] == "{'output_number': 4321}"
    for output, endpoint, client in ((outputs[11], "atomic", ids[1]), (outputs[12], "sequential", "local")):
        tree, instances = output.split("All flow instances:")
        assert f"reverse_number_{endpoint}/" in tree and f"{client}/" in tree
        assert all(field in tree for field in [*FIELDS, "mounts/", "config_overrides", "state"])
        (instance,) = instances.split()
        assert f"{instance}/" in tree


def test_recursive_serve(execute: Any) -> None:
    outputs = execute("recursive_serve.ipynb")
    assert outputs[1:7] == ["True", "[True, True]", "False", "3", "{'output_number': 1234}", "0"]


def test_storage_and_cleanup(execute: Any) -> None:
    outputs = execute("storage_and_cleanup.ipynb")
    assert outputs[1] == "execute the notebook ['notes:today']\nNone\n"
    assert outputs[2].startswith("{'count': 1} {'count': 2}\n") and "counter/" in outputs[2]
    assert outputs[3] == "True False {'count': 3}\n"
    assert outputs[4] == "InstanceNotFoundError instance_not_found\n"
    assert outputs[5] == "3\nTrue [] 0\n"
    assert outputs[6].startswith("2\nflows")


def test_workflows(execute: Any) -> None:
    outputs = execute("workflows.ipynb")
    assert outputs[1] == "{'result': 10}"
    assert outputs[4] == (
        "['rice with curry', 'rice with pesto', 'pasta with curry', 'pasta with pesto', "
        "'fish with curry', 'fish with pesto']\n"
        "{'plates': 6, 'seats': 8, 'flowers': None}\n"
    )
    assert outputs[5].startswith("flowchart LR\n") and "flowers" in outputs[5] and ":::SKIPPED" in outputs[5]
    assert outputs[6].startswith(
        "Flow failed: Step inverse failed: division by zero (node inverse_2)\n"
        "ZeroDivisionError('division by zero')\n[1, 4, 0]\n"
    )
    nodes = "[('inverse_0', 'succeeded', 1), ('inverse_1', 'succeeded', 1), ('inverse_2', 'failed', 2)]"
    assert outputs[6].replace(",\n", ",").endswith(nodes)
    assert outputs[8] == "Flow failed: Step forever failed: it ran for longer than 2 s (maxexectime)\n"
    assert outputs[10] == "[121, 4554]"


@pytest.mark.parametrize("broker_url", ["embedded"], indirect=True)
def test_registry(execute: Any) -> None:
    """Its assertions are those of the seed; the kernel fails with them."""
    outputs = execute("registry.ipynb")
    assert outputs[4] == "['node', 'registry', 'provider']"
    assert outputs[5] == "['Media 7', 'Media 6'] 14 of 55\n{'Journey': 5, 'Mediaplus': 50}"
    assert outputs[7] == "['Mediaplus', 'Node with New Name', 'Registry']"
    assert outputs[9] == "['Acme', 'reverse_number_atomic', 'online']"
    assert outputs[10] == "{'output_number': 4321}\n"
    assert outputs[11] == "flow_not_listed\n"
    assert outputs[12] == "[0, 0, 0]"
