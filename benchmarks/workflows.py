"""Workflows: how the engine scales, and the local runner beside nextpipe and Dask threads.

``python -m benchmarks.workflows [--quick] [--peers PYTHON]``; PYTHON is an interpreter that has nextpipe and dask
installed beside what coflows needs. Figures are CPU and wall time per step; of the peers, in the same run.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from coflows.workflow.graph import Graph
from coflows.workflow.graph import step as graph_step
from coflows.workflow.graph.commands import Start
from coflows.workflow.graph.events import Started, Submitted, Succeeded
from coflows.workflow.graph.process import Need, ProcessSpec
from coflows.workflow.graph.records import changes
from coflows.workflow.local.body import Body
from coflows.workflow.local.run import LocalRun

Specs = list[ProcessSpec]


def chain(count: int) -> Specs:
    return [ProcessSpec(f"s{i}", (Need(f"s{i - 1}"),) if i else ()) for i in range(count)]


def fan(count: int) -> Specs:
    """One step, ``count`` that need it, one that needs those."""
    middle = [ProcessSpec(f"s{i}", (Need("first"),)) for i in range(count)]
    return [ProcessSpec("first"), *middle, ProcessSpec("last", tuple(Need(spec.name) for spec in middle))]


def foreach(count: int) -> Specs:
    """The same, grown while it runs."""
    each = ProcessSpec("each", (Need("items", each=True),), group=True)
    return [ProcessSpec("items", foreach=True), each, ProcessSpec("last", (Need("each"),))]


def grid(side: int) -> Specs:
    """Each step needs the one above and the one to its left."""
    return [
        ProcessSpec(
            f"{row}.{column}",
            tuple(Need(f"{r}.{c}") for r, c in ((row - 1, column), (row, column - 1)) if r >= 0 and c >= 0),
        )
        for row in range(side)
        for column in range(side)
    ]


@dataclass(frozen=True, slots=True)
class Figure:
    """Of one engine run, per process."""

    processes: int
    micros: float
    bytes_held: float
    records: float
    """How many records were written, all steps together."""


def engine(specs: Specs, items: int = 0) -> Figure:
    """Step through a whole run, without a runner; once for the time, once for the memory."""
    gc.collect()
    graph, spent, records = whole_run(specs, items)
    count = len(graph)
    del graph
    tracemalloc.start()
    graph = whole_run(specs, items)[0]
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del graph
    return Figure(count, spent / count * 1e6, held / count, records / count)


def whole_run(specs: Specs, items: int) -> tuple[Graph, float, int]:
    """The graph at its end, the seconds of CPU that its steps took, and how many records they would have written."""
    begin = time.process_time()
    graph, commands = graph_step(Graph(), Submitted(tuple(specs)))
    spent = time.process_time() - begin
    records = len(changes(graph.delta))
    todo = list(commands)
    while todo:
        command = todo.pop()
        if not isinstance(command, Start):
            continue
        count = items if graph.spec(command.process).foreach else None
        for event in (Started(command.process, 1), Succeeded(command.process, 1, items=count)):
            begin = time.process_time()
            graph, commands = graph_step(graph, event)
            spent += time.process_time() - begin
            todo += commands
            delta = graph.delta
            records += len(delta.specs) + len(delta.statuses) + len(delta.needs) + len(delta.dependents) + 1
    assert graph.state == "SUCCESS"
    return graph, spent, records


def local(specs: Specs, items: int = 0, threads: int = 4) -> tuple[float, float]:
    """Wall and CPU seconds of a local run whose steps do nothing."""
    bodies = {spec.name: Body((lambda *_: list(range(items))) if spec.foreach else (lambda *_: 1)) for spec in specs}

    def none() -> object:
        raise AssertionError("no step runs in a process here")

    run = LocalRun(bodies, threads=threads, processes=none, process_count=1)  # type: ignore[arg-type]
    begin, cpu = time.perf_counter(), time.process_time()
    graph = run.run(specs, 100_000)
    assert graph.state == "SUCCESS"
    return time.perf_counter() - begin, time.process_time() - cpu


PEER = """
import json, sys, time, logging
kind, shape, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
if kind == "dask":
    import dask
    from dask.threaded import get
    graph = {"s0": (lambda: 1,)}
    if shape == "chain":
        graph |= {f"s{i}": (lambda x: 1, f"s{i-1}") for i in range(1, count)}
        last = f"s{count-1}"
    else:
        graph |= {f"m{i}": (lambda x: 1, "s0") for i in range(count)}
        graph["last"] = (lambda xs: len(xs), [f"m{i}" for i in range(count)])
        last = "last"
    def run():
        with dask.config.set(num_workers=4, fuse=None):
            get(graph, last)
else:
    from nextpipe import Configuration, FlowSpec, foreach, join, needs, step
    import linecache, types
    if shape == "chain":
        text = "class Peer(FlowSpec):\\n    @step\\n    def s0(x): return 1\\n" + "".join(
            f"    @needs(predecessors=[s{i-1}])\\n    @step\\n    def s{i}(x): return 1\\n" for i in range(1, count))
    else:
        text = ("class Peer(FlowSpec):\\n    @foreach()\\n    @step\\n    def s0(x): return list(range(%d))\\n"
                "    @needs(predecessors=[s0])\\n    @step\\n    def m(x): return 1\\n"
                "    @join()\\n    @needs(predecessors=[m])\\n    @step\\n    def last(xs): return len(xs)\\n") % count
    import tempfile, importlib.util, pathlib, io, contextlib
    path = pathlib.Path(tempfile.mkdtemp()) / "peer_flow.py"
    path.write_text("from nextpipe import FlowSpec, foreach, join, needs, step\\n" + text)
    spec = importlib.util.spec_from_file_location("peer_flow", path)
    module = importlib.util.module_from_spec(spec); sys.modules["peer_flow"] = module; spec.loader.exec_module(module)
    def run():
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            module.Peer("peer", 1, conf=Configuration(thread_count=4, max_step_inputs=count + 1), client=object()).run()
begin, cpu = time.perf_counter(), time.process_time()
run()
print(json.dumps([time.perf_counter() - begin, time.process_time() - cpu]))
"""


def peer(python: str, kind: str, shape: str, count: int, timeout: float = 120) -> tuple[float, float] | None:
    """The same at nextpipe or Dask; None when it takes longer than ``timeout`` seconds."""
    try:
        done = subprocess.run(
            [python, "-c", PEER, kind, shape, str(count)], capture_output=True, text=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    wall, cpu = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu


def scaling(quick: bool) -> Table:
    """The engine at two sizes of each shape: what costs as much per process at both is linear."""
    sizes: list[tuple[str, Callable[[int], Specs], Sequence[int]]] = [
        ("chain", chain, (100, 200) if quick else (1_000, 10_000, 50_000)),
        ("fan-out and join", fan, (50, 100) if quick else (500, 10_000)),
        ("foreach and join", foreach, (50, 100) if quick else (500, 10_000)),
        ("grid", grid, (5, 10) if quick else (30, 100)),
    ]
    table = Table("shape", "processes", "us CPU each", "bytes each", "records written each", title="engine")
    for name, make, counts in sizes:
        for count in counts:
            figure = engine(make(count), count)
            table.add_row(
                name,
                f"{figure.processes:,}",
                f"{figure.micros:.0f}",
                f"{figure.bytes_held:,.0f}",
                f"{figure.records:.1f}",
            )
    return table


def runners(python: str | None, quick: bool, rounds: int) -> Table:
    """The local runner, beside its peers."""
    table = Table(
        "run", "who", "wall ms", "CPU ms", "x coflows", title=f"local runs of empty steps, medians of {rounds}"
    )
    shapes: list[tuple[str, str, Callable[[int], Specs], int]] = [
        ("chain", "chain", chain, 20 if quick else 100),
        ("foreach + join", "fan", foreach, 20 if quick else 500),
        ("chain", "chain", chain, 50 if quick else 10_000),
        ("foreach + join", "fan", foreach, 50 if quick else 10_000),
    ]
    for name, shape, make, count in shapes:
        own = [local(make(count), count) for _ in range(rounds)]
        base = statistics.median(wall for wall, _ in own)
        cpu = statistics.median(used for _, used in own)
        table.add_row(f"{name} of {count:,}", "coflows", f"{base * 1e3:.1f}", f"{cpu * 1e3:.1f}", "1.0")
        for kind in ("dask", "nextpipe") if python else ():
            if kind == "nextpipe" and count > 1_000:
                continue  # Minutes to hours: it looks through all its steps for each.
            taken = [peer(str(python), kind, shape, count) for _ in range(rounds)]
            walls = [one[0] for one in taken if one is not None]
            if len(walls) < rounds:
                table.add_row("", kind, "> 120,000", "", "")
                continue
            used = statistics.median(one[1] for one in taken if one is not None)
            wall = statistics.median(walls)
            table.add_row("", kind, f"{wall * 1e3:.1f}", f"{used * 1e3:.1f}", f"{wall / base:.1f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.workflows")
    parser.add_argument("--quick", action="store_true", help="small: shows that it works")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has nextpipe and dask")
    given = parser.parse_args()
    console = Console(width=110)
    console.print(scaling(given.quick))
    console.print(runners(given.peers, given.quick, 1 if given.quick else 3))


if __name__ == "__main__":
    sys.exit(main())
