"""``make chaos SECONDS=300 SEED=1``: the whole load under randomly chosen faults, and one table of what came of it."""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos.soak import Outcome, soak
from tests.services.rabbitmq import RabbitMQ


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instances", type=int, default=200)
    parser.add_argument("--messages", type=int, default=0, help="at least 10,000 and 80 a second unless it is given")
    parser.add_argument("--only", action="append", default=[], metavar="FAULT", help="draw no others")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    console, start = Console(), time.monotonic()
    node = RabbitMQ().start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            outcome = soak(
                node,
                Path(folder),
                seed=given.seed,
                seconds=given.seconds,
                messages=given.messages or max(10_000, int(80 * given.seconds)),
                instances=given.instances,
                only=given.only,
                tell=lambda fault: console.print(f"{time.monotonic() - start:6.0f} s  {fault}", style="dim"),
            )
    finally:
        node.stop()
    console.print(table(outcome, f"seed {given.seed}, {given.seconds:.0f} s"))
    if not outcome.good:
        raise SystemExit(1)


def table(outcome: Outcome, title: str) -> Table:
    """The faults, how often each was done, and how long it took until all was answered that was under way; below it
    what is to be 0."""
    made = Table("fault", "times", "recovered", "median s", "longest s", title=title)
    for name, recoveries in sorted(outcome.recoveries.items()):
        known = [seconds for seconds in recoveries if seconds is not None]
        times = (f"{statistics.median(known):.1f}", f"{max(known):.1f}") if known else ("", "")
        made.add_row(name, str(len(recoveries)), str(len(known)), *times)
    made.add_section()
    verdict = outcome.verdict
    for name in ("sent", "lost", "twice", "disordered", "unended", "failed"):
        made.add_row(name, str(getattr(verdict, name)))
    found, expected = outcome.dead
    made.add_row("left in queues and stores", str(len(outcome.left)), *outcome.left[:1])
    made.add_row("dead letters, expected", f"{len(found)}, {expected}", *([] if len(found) == expected else found[:1]))
    made.add_row("verdict", "good" if outcome.good else "BAD")
    return made


if __name__ == "__main__":
    main()
