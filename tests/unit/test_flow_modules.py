"""The shipped flow modules: complete, their demos run, and two conversations through one instance never mix."""

from __future__ import annotations

import importlib
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

import flow_modules
from coflows import Client, FlowMessage
from coflows.serving import get_flow_instance, recursive_serve_flow
from flow_modules.ReverseNumberFlowModule import ReverseNumberAtomicFlow
from flow_modules.WordRankFlowModule.workflow import WordRank
from workers import run_dispatch_worker_thread

FOLDERS = sorted(path.parent for path in Path(flow_modules.__path__[0]).glob("*/__init__.py"))
TIMEOUT = 30


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_module_is_complete(folder: Path) -> None:
    module = importlib.import_module(f"flow_modules.{folder.name}")
    assert folder.name.removesuffix("FlowModule") in (folder / "README.md").read_text()
    for name in module.__all__:
        assert (folder / f"{name}.yaml").is_file() and getattr(module, name).get_config()["description"]
        assert f"`{name}`" in (folder / "README.md").read_text()


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_demo_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    importlib.import_module(f"flow_modules.{folder.name}.demo").main()
    expected = {"Echo": "{'text': 'hello'}", "Counter": "{'count': 3}", "ReverseNumber": "{'output_number': 4321}"}
    expected["WordRank"] = "[['"
    assert expected[folder.name.removesuffix("FlowModule")] in capsys.readouterr().out


def test_words_are_ranked_as_a_plain_count_ranks_them() -> None:
    from pydoc_data.topics import topics

    flow = WordRank("word-rank", {"parts": 3, "letters": 5, "top": 20})
    flow.run()
    words = re.findall("[a-z]+", " ".join(topics.values()).lower())
    counts = Counter(word for word in words if len(word) >= 5)
    assert flow.get_result(flow.rank) == sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:20]
    assert [node.id for node in flow.graph.step_named("count").nodes] == ["count_0", "count_1", "count_2"]
    assert len(flow.get_result(flow.chart).splitlines()) == 20


@pytest.mark.parametrize("number", ["1234", "", 1.5, True, None, [1]])
def test_what_is_no_integer_cannot_be_reversed(number: object) -> None:
    flow = ReverseNumberAtomicFlow.instantiate_from_default_config()
    with pytest.raises(ValueError, match="'number' must be an integer"):
        flow.run(FlowMessage({"number": number}))


def test_conversations_through_one_instance_never_mix(users: Callable[..., list[Client]]) -> None:
    (cl,) = users(1)
    run_dispatch_worker_thread(cl)
    recursive_serve_flow(cl, "ReverseNumberFlowModule.ReverseNumberSequentialNonBlockingFlow", "twice")
    flow = get_flow_instance(cl, "twice")
    random_number = random.Random(7).randrange
    numbers = [random_number(10**9) * 10 + 1 for _ in range(40)] + [-123, 7, 0]
    futures = [flow.get_reply_future(flow.package_input_message({"number": number})) for number in numbers]
    assert [future.get_data(TIMEOUT) for future in futures] == [{"output_number": number} for number in numbers]
    assert flow.ask({"number": 120}, TIMEOUT) == {"output_number": 12}
