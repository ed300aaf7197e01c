"""``make chaos SECONDS=300 SEED=1``: the whole load under randomly chosen faults, and one table of what came of it."""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.chaos import faults
from tests.chaos.world import Load, world
from tests.services.rabbitmq import RabbitMQ


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--instances", type=int, default=200)
    given = parser.parse_args()
    dice = random.Random(given.seed)
    node = RabbitMQ().start()
    counts = dict.fromkeys(faults.FAULTS, 0)
    try:
        with tempfile.TemporaryDirectory() as folder, world(node, Path(folder)) as made:
            for user in ("alice", "alice", "bob"):
                made.worker(user)
            load = Load(made.witnesses(given.instances * 4 // 5, given.instances // 5))
            until = time.monotonic() + given.seconds
            sending = threading.Thread(target=_send, args=(load, until))
            sending.start()
            while sending.is_alive():
                name = dice.choice(list(faults.FAULTS))
                faults.FAULTS[name](made, dice)
                counts[name] += 1
                sending.join(dice.uniform(0.0, 3.0))
            verdict = load.verdict()
    finally:
        node.stop()
    table = Table("fault", "times", title=f"seed {given.seed}, {given.seconds:.0f} s")
    for name, count in counts.items():
        table.add_row(name, str(count))
    Console().print(table)
    Console().print(verdict)
    if not verdict.good:
        raise SystemExit(1)


def _send(load: Load, until: float) -> None:
    while time.monotonic() < until:
        load.send(1)


if __name__ == "__main__":
    main()
