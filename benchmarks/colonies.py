"""Workflows on executors: a chain, and a fan-out with a join, beside Celery's chain and chord on the same broker.

``python -m benchmarks.colonies [--quick] [--large] [--broker URL] [--rounds N] [--peers PYTHON] [--json FILE]``; PYTHON
is an interpreter that has celery installed (and sqlalchemy, for its results), without it Celery is left out; with it
and without a broker a private RabbitMQ is started. The executor is one process with eight threads, as Celery's worker
is; steps do nothing. What is measured is the wall time from submitting to knowing that all is over, and per step.
``--large`` adds a chain of 1,000, fan-outs of 2,000 and 10,000, and a chord of 10,000, once each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from coflows import connect
from coflows.identity.home import Home
from coflows.workflow import Colonies, Workflow, func_spec

ROOT = Path(__file__).parents[1]
COLONY, KIND = "bench", "idle"
THREADS = 8


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: the median of the rounds, in milliseconds, for the whole and for each step."""

    what: str
    steps: int
    total: float
    each: float


def tick(*before: object) -> int:
    """A step that does nothing."""
    return len(before)


def chain(count: int) -> Workflow:
    workflow = Workflow(COLONY)
    for number in range(count):
        spec = func_spec("tick", executortype=KIND, nodename=f"s{number}")
        spec.conditions.dependencies += [f"s{number - 1}"] if number else []
        workflow.functionspecs.append(spec)
    return workflow


def fan(count: int) -> Workflow:
    workflow = Workflow(COLONY)
    workflow.functionspecs += [func_spec("tick", executortype=KIND, nodename=f"s{one}") for one in range(count)]
    last = func_spec("tick", executortype=KIND, nodename="join")
    last.conditions.dependencies += [f"s{number}" for number in range(count)]
    workflow.functionspecs.append(last)
    return workflow


@contextmanager
def colony(broker: str | None) -> Iterator[Colonies]:
    """A colony whose coordinator and executor are a process of their own."""
    with tempfile.TemporaryDirectory(prefix="coflows-bench-") as folder:
        os.environ["COFLOWS_HOME"] = folder
        if broker:
            os.environ["COFLOWS_BROKER_URL"] = broker
        Home(Path(folder)).create_user("bench")
        command = [sys.executable, "-m", "workers.executor", "--user", "bench", "--colony", COLONY, "--type", KIND]
        command += ["--functions", "benchmarks.colonies", "--concurrency", str(THREADS)]
        with connect("bench") as cl:
            client = Colonies(cl, coordinate=False)
            client.add_colony(COLONY)
            process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                assert process.stdout is not None and process.stdout.readline().startswith(b"Ready")
                yield client
            finally:
                process.terminate()
                process.wait()


def seconds(client: Colonies, workflow: Workflow) -> float:
    begin = time.perf_counter()
    end = client.wait(client.submit_workflow(workflow), 1200)
    taken = time.perf_counter() - begin
    assert end.state == "SUCCESS", end.reason
    client.remove(end.processgraphid)
    return taken


def row(what: str, steps: int, rounds: int, measure: Callable[[], float]) -> Row:
    total = statistics.median(measure() for _ in range(rounds)) * 1e3
    return Row(what, steps, total, total / steps)


CELERY = """
import os
from celery import Celery
app = Celery("bench_app", broker=os.environ["BENCH_BROKER"], backend="db+sqlite:///results.db")
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True)

@app.task
def tick(*before):
    return len(before)
"""
DRIVER = """
import json, statistics, sys, time
from celery import chain, chord
from bench_app import tick
length, width, rounds = map(int, sys.argv[1:])

def run(start):
    begin = time.perf_counter()
    start().get(timeout=3000, interval=0.005)
    return time.perf_counter() - begin

run(lambda: tick.delay())
chains = [run(lambda: chain(*[tick.s() for _ in range(length)]).delay()) for _ in range(rounds)]
chords = [run(lambda: chord([tick.s() for _ in range(width)])(tick.s())) for _ in range(rounds)]
print(json.dumps([statistics.median(chains), statistics.median(chords)]), flush=True)
"""


def celery_rows(python: str, broker: str, length: int, width: int, rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="celery-bench-") as folder:
        (Path(folder) / "bench_app.py").write_text(CELERY)
        environment = {**os.environ, "BENCH_BROKER": broker, "PYTHONPATH": folder}
        command = [
            python,
            "-m",
            "celery",
            "-A",
            "bench_app",
            "worker",
            "-P",
            "threads",
            "-c",
            str(THREADS),
            "-l",
            "ERROR",
        ]
        worker = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            words = [python, "-c", DRIVER, str(length), str(width), str(rounds)]
            done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=3600)
        finally:
            worker.terminate()
            worker.wait()
    if done.returncode:
        sys.stderr.write(f"Celery could not be measured: {done.stderr[-2000:]}\n")
        return []
    of_chain, of_chord = (figure * 1e3 for figure in json.loads(done.stdout.splitlines()[-1]))
    return [
        Row("Celery: chain", length, of_chain, of_chain / length),
        Row("Celery: chord", width + 1, of_chord, of_chord / (width + 1)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.colonies")
    parser.add_argument("--quick", action="store_true", help="few steps: shows that it works")
    parser.add_argument("--large", action="store_true", help="10,000 steps too")
    parser.add_argument("--broker", help="a RabbitMQ to use; without it the embedded broker")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter with celery")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    rounds, length, width = (1, 5, 10) if given.quick else (given.rounds, 100, 500)
    with ExitStack() as exit_stack:
        if given.peers and not given.broker:
            from tests.services.rabbitmq import RabbitMQ

            node = RabbitMQ()
            exit_stack.callback(node.stop)
            given.broker = node.start().url
        measured(given, rounds, length, width)


def measured(given: argparse.Namespace, rounds: int, length: int, width: int) -> None:
    with colony(given.broker) as client:
        seconds(client, chain(2))
        rows = [
            row("CoFlows: chain", length, rounds, lambda: seconds(client, chain(length))),
            row("CoFlows: fan-out and join", width + 1, rounds, lambda: seconds(client, fan(width))),
        ]
        if given.large:
            rows.append(row("CoFlows: chain", 1000, 1, lambda: seconds(client, chain(1000))))
            for more in (2000, 10_000):
                rows.append(row("CoFlows: fan-out and join", more + 1, 1, lambda: seconds(client, fan(more))))  # noqa: B023
    if given.peers:
        rows += celery_rows(given.peers, given.broker, length, width, rounds)
        if given.large:
            rows += celery_rows(given.peers, given.broker, length, 10_000, 1)[1:]
    table = Table("what", "steps", "total ms", "ms per step", title=f"medians of {rounds}")
    for one in rows:
        table.add_row(one.what, str(one.steps), f"{one.total:,.0f}", f"{one.each:,.2f}")
    Console(width=100).print(table)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(one) for one in rows], indent=2))


if __name__ == "__main__":
    main()
