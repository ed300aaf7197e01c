"""Nothing that another user wrote is unpickled, imported or made an object of: by what the code may call, and tried."""

from __future__ import annotations

import ast
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coflows import Client
from coflows.codec.wire import decode, encode
from coflows.errors import CoflowsError
from coflows.serving import get_flow_instance, serve_flow
from tests.security.operator import TIMEOUT
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

ROOT = Path(__file__).parents[2]
MODULES = sorted(path for part in ("coflows", "workers", "flow_modules") for path in (ROOT / part).rglob("*.py"))
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
UNSAFE_YAML = {"load", "load_all", "unsafe_load", "full_load", "unsafe_load_all", "full_load_all", "Loader"}
UNSAFE_YAML |= {"UnsafeLoader", "FullLoader", "CLoader"}
OWN_CODE = {
    "coflows/codec/state.py": "a user's own state",
    "coflows/dispatch/child_turn.py": "from and to his own worker processes",
    "coflows/dispatch/process_turn.py": "from and to his own worker processes",
    "coflows/pools/child.py": "from and to his own worker processes",
    "coflows/pools/process_pool.py": "from and to his own worker processes",
    "coflows/pools/raised.py": "from and to his own worker processes",
    "coflows/workflow/colonies/function_spec.py": "functions that he submits",
    "coflows/workflow/colonies/functions.py": "functions of those whose code he says he runs",
}
"""Who may pickle through codec/code.py, and what."""


def imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_no_module_could_run_what_it_reads() -> None:
    pickling = set()
    for path in MODULES:
        name, tree = str(path.relative_to(ROOT)), ast.parse(path.read_text())
        found = set(imported(tree))
        assert name == "coflows/codec/code.py" or not {one.partition(".")[0] for one in found} & PICKLERS, name
        assert not {f"yaml.{one}" for one in UNSAFE_YAML} & found, name
        pickling |= {name} if "coflows.codec.code" in found else set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "yaml" and node.attr in UNSAFE_YAML), f"{name}:{node.lineno}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "compile", "__import__"), f"{name}:{node.lineno}"
    assert pickling == set(OWN_CODE)


class Evil:
    """Would say that it was made, wherever it is unpickled."""

    made: list[str] = []

    def __reduce__(self) -> tuple[Any, ...]:
        return self.made.append, ("made",)


PICKLED = pickle.dumps(Evil())
LOOKALIKES: list[Any] = [PICKLED, {"p": PICKLED}, b"p" + PICKLED, ["__reduce__", "os.system", ["true"]]]


@pytest.mark.parametrize("value", LOOKALIKES, ids=["bytes", "dict", "state", "reduce"])
def test_what_looks_like_a_pickle_is_data(value: Any, users: Callable[..., list[Client]]) -> None:
    """As a message, an override, a state to begin with, and as the bytes of a payload."""
    owner, client = users(2)
    run_dispatch_worker_thread(owner)
    run_get_instance_worker_thread(owner)
    serve_flow(owner, "EchoFlowModule.EchoFlow", "echo")
    state = {"value": value, "p": PICKLED}
    flow = get_flow_instance(client, "echo", owner.user_id, initial_state=state, config_overrides={"name": "b'p'"})
    assert "value" in str(flow.ask({"value": value, "_target_": "os.system", "${x}": "!!python/object"}, TIMEOUT))
    with pytest.raises(CoflowsError):
        decode(PICKLED, max_bytes=2**20)
    with pytest.raises(CoflowsError):
        encode({"value": Evil()})
    assert Evil.made == []
