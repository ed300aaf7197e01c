"""The results of a run: as tables on the terminal, as JSON, and as Markdown for the documents."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.contest import WINDOW, Comparison

BEGIN, END = "<!-- figures -->", "<!-- end of figures -->"
ROLES = ("client", "worker", "broker", "store")


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure beside the calls; ``ratio`` to what ``against`` says; ``asked`` is the target."""

    what: str
    value: float
    unit: str
    ratio: float | None = None
    against: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True)
class Burden:
    """Calls beside much of something, compared to calls without it; resident megabytes of the worker after them."""

    compared: Comparison
    worker: float


@dataclass(slots=True)
class Results:
    """What one run found. ``asked`` are the targets of comparisons by name."""

    rounds: int
    comparisons: list[Comparison] = field(default_factory=list)
    burdens: list[Burden] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    asked: dict[str, str] = field(default_factory=dict)

    def rows(self) -> list[list[str]]:
        """The calls, one row for each contestant; the reference's medians are of all the rounds beside the others."""
        rows = []
        if self.comparisons:
            first = self.comparisons[0]
            base = Comparison(first.against, first.against, first.reference, first.reference)
            for one in (base, *self.comparisons):
                single, many = one.own[1], one.own[WINDOW]
                cpu = " / ".join(f"{many.cpu[role]:.0f}" if role in many.cpu else "-" for role in ROLES)
                rows.append(
                    [
                        one.name,
                        f"{single.p50:.2f} ms",
                        f"{one.latency_ratio:.2f}",
                        f"{many.rate:,.0f}",
                        f"{one.rate_ratio:.2f}",
                        cpu,
                        self.asked.get(one.name, ""),
                    ]
                )
        return rows

    def burden_rows(self) -> list[list[str]]:
        """What a burden changes."""
        return [
            [
                one.compared.name,
                f"{one.compared.own[1].p50:.2f} ms",
                f"{one.compared.latency_ratio:.2f}",
                f"{one.compared.own[WINDOW].rate:,.0f}",
                f"{one.compared.rate_ratio:.2f}",
                f"{one.worker:.0f} MB",
            ]
            for one in self.burdens
        ]

    def figure_rows(self) -> list[list[str]]:
        """The other figures."""
        return [
            [
                one.what,
                f"{one.value:,.2f} {one.unit}",
                "" if one.ratio is None else f"{one.ratio:.2f} x {one.against}",
                one.asked,
            ]
            for one in self.figures
        ]

    def tables(self) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
        """Title, columns and rows of each table that has rows."""
        cpu = f"us of CPU per call: {', '.join(ROLES)}"
        calls = (
            "system",
            "p50 of one call",
            "x ref",
            f"calls/s, {WINDOW} in flight",
            "x ref",
            cpu,
            "asked: p50, calls/s",
        )
        burden = ("with", "p50 of one call", "x without", f"calls/s, {WINDOW} in flight", "x without", "worker, RSS")
        tables = [
            ("Calls", calls, self.rows()),
            ("Burdens", burden, self.burden_rows()),
            ("Other figures", ("what", "median", "ratio", "asked"), self.figure_rows()),
            ("Not measured", ("what", "why"), [list(pair) for pair in self.missing.items()]),
        ]
        return [table for table in tables if table[2]]

    def show(self) -> None:
        """Print the tables."""
        console = Console(width=150)
        for title, columns, rows in self.tables():
            table = Table(*columns, title=f"{title}: medians of {self.rounds} round(s)")
            for row in rows:
                table.add_row(*row)
            console.print(table)

    def markdown(self) -> str:
        """The tables for a document."""
        parts = [f"Medians of {self.rounds} rounds on {os.cpu_count()} cores, Python {platform.python_version()}.\n"]
        for title, columns, rows in self.tables():
            lines = [columns, ["---"] * len(columns), *rows]
            parts.append("\n".join([f"**{title}**\n", *(f"| {' | '.join(line)} |" for line in lines), ""]))
        return "\n".join(parts)

    def put_into(self, path: Path) -> None:
        """Write the tables between the two marks of a document, or as a document of their own where it has none."""
        text = self.markdown()
        if path.exists() and BEGIN in (before := path.read_text()):
            head, _, rest = before.partition(BEGIN)
            text = f"{head}{BEGIN}\n{text}\n{END}{rest.partition(END)[2]}"
        path.write_text(text)

    def write(self, path: Path) -> None:
        """Keep the figures."""
        path.write_text(json.dumps(asdict(self), indent=2))
