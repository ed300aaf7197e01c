"""A workflow that a program runs on executors and may be killed over: ``python -m tests.colony_flow FOLDER``."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from coflows import connect
from coflows.workflow import FlowSpec, foreach, join, needs, step

COLONY, KIND, RUN_ID = "test", "note-taker", "nightly"


class Nightly(FlowSpec):
    """Its steps note that they ran, in the folder that it is given."""

    @step
    @foreach()
    def parts(self, folder: str) -> list[list[object]]:
        return [[folder, number] for number in range(4)]

    @step
    @needs(predecessors=[parts])
    def work(self, part: tuple[str, int]) -> int:
        folder, number = part
        Path(folder, f"begun {number}").touch()
        while number and not Path(folder, "go on").exists():
            time.sleep(0.02)
        return number * 10

    @step
    @join()
    @needs(predecessors=[work])
    def total(self, numbers: list[int]) -> int:
        return sum(numbers)


def main() -> None:
    with connect("owner") as cl:
        Nightly("nightly", sys.argv[1]).run(cl=cl, colonyname=COLONY, executortype=KIND, run_id=RUN_ID)


if __name__ == "__main__":
    main()
