"""The threat model names, for all that somebody might try, tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODEL = (ROOT / "docs" / "threat-model.md").read_text()
ATTACKS = 60


def attacks() -> dict[str, str]:
    """The tests of tests/security, and where each is."""
    found: dict[str, str] = {}
    for path in (ROOT / "tests" / "security").glob("test_*.py"):
        names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        found |= {name: path.name for name in names if name.startswith("test_") and path.name != Path(__file__).name}
    return found


def test_every_row_is_tried_by_tests_that_are_there() -> None:
    rows = [line for line in MODEL.splitlines() if line.startswith("| ") and "tried by" not in line]
    assert len(rows) >= 15
    there = attacks()
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[3])
        assert named, row
        assert set(named) <= set(there), set(named) - set(there)


def test_there_are_as_many_attacks_as_were_asked_for() -> None:
    assert len(attacks()) >= ATTACKS
