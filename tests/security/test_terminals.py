"""What others wrote, on its way to a terminal or a log: replies, tracebacks, what executors say, errors of flows."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from coflows import Client
from coflows.cli import workflow as cli_workflow
from coflows.cli.context import Options
from coflows.model.failure import Failure
from coflows.redaction import RedactingFormatter, Redactor
from coflows.shown import as_json
from coflows.workflow.colonies.function_spec import func_spec
from coflows.workflow.colonies.process_graph import Process
from coflows.workflow.graph.states import ProcessState

COMMAND = "\x1b[2J\x1b]0;owned\x07\x9b2J\u202e"


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    printed = capsys.readouterr()
    text = printed.out + printed.err
    assert all(line.isprintable() for line in text.splitlines()), text
    return text


def test_a_reply_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """It was printed as JSON in its own letters, of which some are commands to a terminal."""
    reply = {"text": f"é {COMMAND}\n", COMMAND: ["😀", "\U000e0041"]}
    Options().show(reply, as_json(reply))
    text = shown(capsys)
    assert json.loads(text) == reply and "é" in text and "😀" in text


def test_a_traceback_of_another_user_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Only an owner is sent one, but a provider may send what he likes."""
    failure = Failure.from_dict(
        {"code": "exception", "error_type": COMMAND, "text": COMMAND, "raised": True, "trace": COMMAND}
    )
    Options(verbose=True).fail(failure.to_error("A flow"))
    assert "owned" in shown(capsys)


def test_what_an_executor_says_commands_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    spec = func_spec("f", executortype="python")
    process = Process("c/i/f", "c/i", "f", spec, ProcessState.FAILED, attempt=1, reason=COMMAND, ended_at=1.0)
    cli_workflow._show_process(Options(), process)
    assert "owned" in shown(capsys)


def test_an_error_of_a_flow_forges_no_line_of_the_log() -> None:
    """Flows raise errors with what they were sent in them."""

    def record(message: str, error: BaseException | None = None) -> str:
        info: Any = None if error is None else (type(error), error, None)
        made = logging.LogRecord("coflows", logging.WARNING, __file__, 1, "raised: %s", (message,), info)
        inner = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
        return RedactingFormatter(Redactor({"KEY": "correct-horse"}), inner).format(made)

    forged = f"no{COMMAND}\n2026-01-01 00:00:00 CRITICAL all is lost correct-horse"
    for text in (record(forged), record("", ValueError(forged))):
        first, *others = text.split("\n")
        assert all(line.startswith("    ") for line in others) and others
        assert all(line.isprintable() for line in (first, *others)) and "[secret KEY]" in text


def test_a_dead_letter_makes_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from coflows import dead_letters
    from coflows.cli.app import run

    letter = dead_letters.DeadLetter("0" * 16, "queue", f"envelope: {COMMAND}\n0000 forged", 5, 0.0)
    monkeypatch.setattr(dead_letters, "list_dead_letters", lambda _cl: [letter])
    monkeypatch.setattr(Options, "client", lambda _self: _Nobody())
    monkeypatch.setattr(sys, "argv", ["coflows", "dlq", "list"])
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 0
    assert len(shown(capsys).splitlines()) == 1


class _Nobody:
    def __enter__(self) -> Client | None:
        return None

    def __exit__(self, *_error: object) -> None:
        return None
