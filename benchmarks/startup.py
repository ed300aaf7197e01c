"""How long a cold start takes, against the libraries that any such program loads."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.report import Figure

PAIRS = (
    ("import coflows", ("-c", "import coflows"), "import pydantic", "at most 1.5 x"),
    ("coflows --help", ("-m", "coflows.cli", "--help"), "import typer, pydantic", "at most 2 x"),
)


def figures(rounds: int) -> list[Figure]:
    """Both starts, each in turn with what it is compared to."""
    found = []
    for what, words, against, asked in PAIRS:
        times = [(_seconds(*words), _seconds("-c", against)) for _ in range(rounds)]
        own, base = (statistics.median(pair[side] for pair in times) for side in (0, 1))
        found.append(Figure(what, own * 1e3, "ms", own / base, against, asked))
    return found


def _seconds(*words: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    return time.perf_counter() - begin
