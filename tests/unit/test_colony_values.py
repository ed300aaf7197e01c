"""The pure parts of colonies: what waits for executors, what is told of a run, what goes into one message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coflows.errors import SerializationError
from coflows.workflow.colonies.backlog import Backlog
from coflows.workflow.colonies.changes import Changes
from coflows.workflow.colonies.following import Following
from coflows.workflow.colonies.function_spec import MAX_PART, parts_of
from coflows.workflow.colonies.pace import SLACK, Pace
from coflows.workflow.graph import Graph, step
from coflows.workflow.graph.commands import Start
from coflows.workflow.graph.events import Submitted
from coflows.workflow.graph.process import Policy, ProcessSpec
from coflows.workflow.graph.states import ProcessState


@given(st.lists(st.tuples(st.sampled_from(["cpu", "gpu"]), st.integers(-2, 2))))
def test_the_backlog_gives_the_most_urgent_first_and_else_keeps_the_order(given_out: list[tuple[str, int]]) -> None:
    backlog = Backlog()
    for number, (kind, priority) in enumerate(given_out):
        backlog.put(Start(f"p{number}", 1, kind, priority))
    for kind in ("cpu", "gpu"):
        taken = []
        while backlog.waits(kind):
            taken.append(backlog.take(kind).process)
        expected = sorted((-priority, number) for number, (of, priority) in enumerate(given_out) if of == kind)
        assert taken == [f"p{number}" for _, number in expected]
    with pytest.raises(KeyError):
        backlog.take("cpu")


def test_nothing_is_handed_out_beforehand_where_it_could_hold_up_what_is_more_urgent() -> None:
    pace = Pace()
    pace.note_specs([ProcessSpec("a"), ProcessSpec("b")])
    assert pace.slack("cpu") == 0, "nobody knows yet how long they take"
    for _ in range(SLACK * 2):
        pace.note_end("cpu", short=True)
    assert pace.slack("cpu") == SLACK and pace.slack("gpu") == 0
    pace.note_end("cpu", short=False)
    assert pace.slack("cpu") == SLACK // 2
    for _ in range(10):
        pace.note_end("cpu", short=False)
    assert pace.slack("cpu") == 0
    pace.note_end("cpu", short=True)
    assert pace.slack("cpu") == 1
    pace.note_specs([ProcessSpec("urgent", policy=Policy(priority=1))])
    assert pace.slack("cpu") == 0


@given(st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=8), st.integers(0, 7))
def test_who_looks_again_is_told_what_changed_since(changes: list[list[str]], looks_after: int) -> None:
    log = Changes("abc")
    seen: Any = None
    for name, number in log.since(None):
        seen = number
        assert name in "abc"
    expected: set[str] = set()
    for turn, names in enumerate(changes):
        log.note(names)
        expected |= set(names)
        if turn == looks_after:
            told = list(log.since(seen))
            assert {name for name, _ in told} == expected and len(told) == len(expected)
            seen, expected = (told[-1][1] if told else seen), set()
    assert {name for name, _ in log.since(seen)} == expected
    everything = {name for name, _ in log.since(None)}
    for strange in ("x", [], ["other life", 3], [seen, seen], 7, {"a": 1}):
        assert {name for name, _ in log.since(strange)} == everything


@given(st.lists(st.integers(0, 400), max_size=30))
def test_parts_hold_all_and_no_more_than_a_message(sizes: list[int]) -> None:
    specs = [{"n": number, "x": b"x" * size} for number, size in enumerate(sizes)]
    parts = parts_of(specs, 500)
    assert [one for part in parts for one in part] == specs
    assert all(len(part) == 1 or sum(len(one["x"]) for one in part) <= 500 for part in parts)
    assert len(parts_of([{}] * (MAX_PART + 1), 10**9)) == 2


def test_following_puts_answers_together() -> None:
    graph, _ = step(Graph(), Submitted((ProcessSpec("a"), ProcessSpec("b"))))
    rows = [
        [name, "WAITING", "", 0.0, 0.0, status.seq, list(status)]
        for name, status in sorted(graph.statuses.items(), reverse=True)
    ]
    answer = {
        "processgraphid": "test/12345678-1234-1234-1234-123456789012",
        "state": "WAITING",
        "initiator": "somebody",
        "submitted_at": 1.0,
        "started_at": 0.0,
        "ended_at": 0.0,
        "head": list(graph.head),
    }
    following = Following(full=True)
    assert following.question("get") == {"ask": "get", "seen": None, "full": True}
    assert following.take({**answer, "rows": rows[:1], "seen": ["life", 1], "more": True})
    assert not following.take({**answer, "rows": rows[1:], "seen": ["life", 2], "more": False})
    assert following.question("wait", done=0)["seen"] == ["life", 2]
    assert [row.name for row in following.processgraph().rows] == ["a", "b"], "in the order in which they came"
    ended = list(graph.statuses["a"]._replace(state=ProcessState.SUCCESS))
    following.advance(graph)
    following.take({**answer, "rows": [["a", "SUCCESS", "", 1.0, 2.0, 0, ended]], "seen": ["life", 3]})
    now = following.advance(graph)
    assert now.statuses["a"].state is ProcessState.SUCCESS and set(now.delta.statuses) == {"a"}
    assert (following.done, following.ended) == (1, False)


@pytest.mark.parametrize("rows", [[[]], [["a"]], [["a", "WAITING", "", 0, 0, "x"]], None, [["a", "", "", 0, 0, 0, []]]])
def test_answers_that_are_none(rows: Any) -> None:
    with pytest.raises(SerializationError, match="malformed"):
        Following(full=True).take({"rows": rows})
    with pytest.raises(SerializationError, match="malformed"):
        following = Following(full=True)
        following.take({"rows": []})
        following.advance(Graph())
