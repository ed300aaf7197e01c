"""Workflows and their processes as tables."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from io import StringIO

from coflows.workflow.colonies.process_graph import ProcessGraph, Row

WIDEST = 400


def graphs_table(graphs: Iterable[ProcessGraph]) -> str:
    """One line for each workflow."""
    return _table(
        ("PROCESSGRAPH ID", "SUBMISSION TIME", "STARTED", "ENDED", "INITIATOR", "STATE"),
        (
            (
                one.processgraphid,
                _time(one.submitted_at),
                _time(one.started_at),
                _time(one.ended_at),
                one.initiator,
                one.state,
            )
            for one in graphs
        ),
    )


def processes_table(graph: ProcessGraph) -> str:
    """One line for each process of a workflow."""
    return _table(
        ("PROCESS", "EXECUTOR TYPE", "STARTED", "ENDED", "STATE"),
        (_process(row) for row in graph.rows),
    )


def _process(row: Row) -> tuple[str, ...]:
    return row.name, row.executortype, _time(row.started_at), _time(row.ended_at), row.state


def _time(seconds: float) -> str:
    return time.strftime("%F %T", time.localtime(seconds)) if seconds else "-"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    from rich import box  # Rich takes long to load, and most commands show no table.
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.ROUNDED)
    for row in rows:
        table.add_row(*map(Text, row))
    for column in table.columns:
        column.no_wrap = True
    printed = StringIO()
    Console(file=printed, width=WIDEST).print(table)
    return printed.getvalue().rstrip("\n")
