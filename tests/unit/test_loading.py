"""From names to flow classes: where they are looked for, and what is said when they are not there."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from coflows.errors import FlowClassError
from coflows.flows.loading import FlowClasses, resolve_flow_class
from flow_modules.EchoFlowModule import EchoFlow

FLOW = """
from coflows import AtomicFlow
class {name}(AtomicFlow):
    default_config = {{"name": "{name}", "description": "For a test."}}
    def run(self, input_message):
        return {{}}
"""


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test imports, and where it looks, is forgotten."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)
    yield
    for name in set(sys.modules) - known:
        del sys.modules[name]


def write(folder: Path, path: str, text: str) -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return folder


def refused(name: object, *texts: str, base_paths: tuple[Path, ...] = ()) -> FlowClassError:
    with pytest.raises(FlowClassError) as caught:
        resolve_flow_class(name, base_paths)  # type: ignore[arg-type]
    assert all(text in str(caught.value) for text in texts), str(caught.value)
    assert caught.value.code == "flow_class" and caught.value.hint
    return caught.value


def test_a_shipped_module_is_found_by_its_short_and_its_full_name() -> None:
    assert resolve_flow_class("EchoFlowModule.EchoFlow") is EchoFlow
    assert resolve_flow_class("flow_modules.EchoFlowModule.EchoFlow") is EchoFlow


def test_a_base_path_is_looked_in(tmp_path: Path) -> None:
    write(tmp_path / "one", "MyModule/__init__.py", "from .inside import Mine\n")
    write(tmp_path / "one", "MyModule/inside.py", FLOW.format(name="Mine"))
    write(tmp_path / "two", "single.py", FLOW.format(name="Single"))
    bases = (tmp_path / "nowhere", tmp_path / "one", tmp_path / "two")
    assert resolve_flow_class("MyModule.Mine", bases).__name__ == "Mine"
    assert resolve_flow_class("MyModule.inside.Mine", bases) is resolve_flow_class("MyModule.Mine", bases)
    assert str(tmp_path / "two") not in sys.path, "only what is needed is added"
    assert resolve_flow_class("single.Single", bases).get_config()["name"] == "Single"
    assert sys.path[-2:] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_a_module_that_was_just_written_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    refused("late.Late", "'late'", base_paths=(tmp_path,))
    before = tmp_path.stat()
    write(tmp_path, "late.py", FLOW.format(name="Late"))
    # As on a file system whose clock is coarse: the folder does not look changed.
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert resolve_flow_class("late.Late", (tmp_path,)).__name__ == "Late"


def test_main(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "MyFlow", EchoFlow, raising=False)
    assert resolve_flow_class("__main__.MyFlow") is EchoFlow
    refused("__main__.Other", "'__main__'", "'Other'", "MyFlow")


def test_classes_are_known_until_something_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "changing.py", FLOW.format(name="First"))
    classes = FlowClasses((tmp_path,))
    first = classes.resolve("changing.First", 1)
    assert classes.resolve("changing.First", 1) is first
    monkeypatch.setattr(sys.modules["changing"], "First", EchoFlow)
    assert classes.resolve("changing.First", 1) is EchoFlow, "as when a notebook defines a class again"
    del sys.modules["changing"]
    again = classes.resolve("changing.First", 1)
    assert again.__name__ == "First" and again is not first
    assert classes.resolve("EchoFlowModule.EchoFlow", 1) is EchoFlow
    write(tmp_path, "EchoFlowModule.py", FLOW.format(name="EchoFlow"))
    assert classes.resolve("EchoFlowModule.EchoFlow", 2).__module__ == "EchoFlowModule"


def test_a_module_of_the_same_name_does_not_hide_a_shipped_one(tmp_path: Path) -> None:
    write(tmp_path, "EchoFlowModule.py", FLOW.format(name="OtherFlow"))
    assert resolve_flow_class("EchoFlowModule.EchoFlow", (tmp_path,)) is EchoFlow
    assert resolve_flow_class("EchoFlowModule.OtherFlow", (tmp_path,)).__module__ == "EchoFlowModule"


@pytest.mark.parametrize("name", ["EchoFlow", "", ".EchoFlow", "Echo..Flow", "Echo.", "a b.C", "a/b.C", None, 3])
def test_names_that_name_nothing(name: object) -> None:
    refused(name, repr(name), "Package.ClassName")


def test_a_module_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    refused("no_such.Flow", "'no_such'", "sys.path", str(tmp_path), "flow_modules", base_paths=(tmp_path,))
    refused("no_such.deeper.Flow", "'no_such.deeper'")
    refused("json.no_such.Flow", "'json.no_such'")


def test_a_missing_dependency_is_not_a_missing_module(tmp_path: Path) -> None:
    write(tmp_path, "needy.py", "import no_such_dependency\n")
    write(tmp_path, "pack/__init__.py", "import pack.absent\n")
    bases = (tmp_path,)
    error = refused("needy.Flow", "'needy'", "needs 'no_such_dependency'", "Install", base_paths=bases)
    assert isinstance(error.__cause__, ModuleNotFoundError)
    refused("pack.Flow", "needs 'pack.absent'", base_paths=bases)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit(3)", "SystemExit: 3"),
        ("def (", "SyntaxError"),
        ("from json import no_such_name", "ImportError"),
    ],
)
def test_a_module_whose_code_raises(tmp_path: Path, text: str, said: str) -> None:
    write(tmp_path, "broken.py", text)
    error = refused("broken.Flow", "'broken' does not import", said, base_paths=(tmp_path,))
    assert error.__cause__ is not None


def test_a_class_that_is_not_there_or_no_flow(tmp_path: Path) -> None:
    write(tmp_path, "many.py", FLOW.format(name="One") + FLOW.format(name="Two") + "class Plain(dict): ...\nSIX = 6\n")
    write(tmp_path, "many.py", (tmp_path / "many.py").read_text() + "class Idle(AtomicFlow): ...\n")
    bases = (tmp_path,)
    refused("many.Three", "'many'", str(tmp_path / "many.py"), "'Three'", "flows: One, Two.", base_paths=bases)
    refused("many.Plain", "many.Plain", "derives from dict", base_paths=bases)
    refused("many.SIX", "many.SIX is a int", base_paths=bases)
    refused("many.Idle", "many.Idle has no run method", base_paths=bases)
    refused("flow_modules.EchoFlowModule", "is a module")


def test_several_threads_may_look_for_classes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Places without files are what the finders forget, and what threads met each other over.
    monkeypatch.setattr(sys, "path", [*sys.path, *(str(tmp_path / f"none{number}.zip") for number in range(50))])
    begin = threading.Barrier(8)

    def look(_number: int) -> None:
        begin.wait()
        for _ in range(20):
            resolve_flow_class("CounterFlowModule.CounterFlow")

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(look, range(8)))
    finally:
        sys.setswitchinterval(interval)
