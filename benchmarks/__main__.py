"""One command, one table: ``python -m benchmarks [--broker URL] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import calls, reference, trees

BODY = b"x" * 100
WINDOW = 500


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median of the rounds, and its ratio to the reference of the same run."""

    what: str
    value: float
    unit: str
    ratio: float | None = None


def median_of(rounds: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(rounds))


def call_rows(name: str, url: str, rounds: int, count: int, base: tuple[float, float] | None) -> list[Row]:
    rows = []
    with calls.served(url) as flows:
        for kind, flow in flows.items():
            calls.latencies(flow, 20)
            p50 = median_of(rounds, lambda flow=flow: statistics.median(calls.latencies(flow, count // 5)) * 1e3)
            rate = median_of(rounds, lambda flow=flow: calls.throughput(flow, count, WINDOW))
            rows.append(Row(f"{name}: {kind} ask, round trip p50", p50, "ms", base and p50 / base[0]))
            rows.append(Row(f"{name}: {kind} ask, {WINDOW} in flight", rate, "calls/s", base and rate / base[1]))
    return rows


def reference_rows(url: str, rounds: int, count: int) -> tuple[list[Row], tuple[float, float]]:
    p50 = median_of(rounds, lambda: statistics.median(reference.measure(url, count // 5, 1, BODY)[0]) * 1e3)
    rate = median_of(rounds, lambda: reference.measure(url, count, WINDOW, BODY)[1])
    rows = [
        Row("reference: raw pika, round trip p50", p50, "ms", 1.0),
        Row(f"reference: raw pika, {WINDOW} in flight", rate, "calls/s", 1.0),
    ]
    return rows, (p50, rate)


def tree_rows(name: str, url: str | None, rounds: int, quick: bool) -> list[Row]:
    rows = []
    for subflows, owners in ((1, 1), (10, 2)) if quick else ((1, 1), (10, 1), (10, 2), (100, 1), (100, 2), (100, 10)):
        taken = statistics.median(trees.fetch_seconds(url, subflows, owners, rounds)) * 1e3
        rows.append(Row(f"{name}: get_flow_instance, {subflows} subflows at {owners} users", taken, "ms"))
    return rows


def start_rows(rounds: int) -> list[Row]:
    def seconds(*words: str) -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, *words], check=True, capture_output=True)
        return time.perf_counter() - begin

    rows = []
    for what, words, against in (
        ("import coflows, against import pydantic", ["-c", "import coflows"], "import pydantic"),
        ("coflows --help, against import typer, pydantic", ["-m", "coflows.cli", "--help"], "import typer, pydantic"),
    ):
        base = median_of(rounds, lambda against=against: seconds("-c", against))
        own = median_of(rounds, lambda words=words: seconds(*words))
        rows.append(Row(what, own * 1e3, "ms", own / base))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--broker", help="a RabbitMQ to use; without it a private node is started")
    parser.add_argument("--quick", action="store_true", help="few calls, embedded only: shows that it works")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    rounds, count = (1, 50) if given.quick else (3, 3000)
    rows: list[Row] = []
    with ExitStack() as exit_stack:
        if not given.quick:
            url = given.broker
            if url is None:
                from tests.services.rabbitmq import RabbitMQ

                node = RabbitMQ()
                exit_stack.callback(node.stop)
                url = node.start().url
            first, base = reference_rows(url, rounds, count)
            rows += [*first, *call_rows("RabbitMQ", url, rounds, count, base)]
            rows += tree_rows("RabbitMQ", url, rounds, False)
        else:
            base = None
        rows += call_rows("embedded", "embedded://", rounds, count, base)
        rows += tree_rows("embedded", None, rounds, given.quick)
        rows += start_rows(max(rounds, 3))
    table = Table("what", "median", "", "x reference", title=f"medians of {rounds}")
    for row in rows:
        table.add_row(row.what, f"{row.value:,.2f}", row.unit, "" if row.ratio is None else f"{row.ratio:.2f}")
    Console(width=120).print(table)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
