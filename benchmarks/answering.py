"""The client process of a contestant: told on standard input what to measure, answers on standard output.

Only the standard library, for peers run it in an environment of their own.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence

Measure = Callable[[str, int, int], tuple[Sequence[float], float]]
"""``measure(target, count, window)``: the seconds that each of ``count`` calls took with ``window`` in flight, and the
seconds that all of them took."""


def answer(measure: Measure) -> None:
    """Say ready, then measure whatever each line asks for, until standard input ends."""
    # What a library prints must not get between the answers.
    with os.fdopen(os.dup(sys.stdout.fileno()), "w") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        print("ready", file=out, flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            cpu = time.process_time()
            latencies, seconds = measure(asked["target"], asked["count"], asked["window"])
            cpu = time.process_time() - cpu
            ordered = sorted(latencies)
            said = {
                "p50": ordered[len(ordered) // 2],
                "p99": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
                "seconds": seconds,
                "cpu": cpu,
            }
            print(json.dumps(said), file=out, flush=True)


def in_turn(
    send: Callable[[], object], result: Callable[[object], object], count: int, window: int
) -> tuple[list[float], float]:
    """Measure a library whose calls are sent one by one and whose results are awaited one by one: the oldest call is
    awaited whenever ``window`` are in flight."""
    latencies: list[float] = []
    open_calls: list[tuple[float, object]] = []
    begin = time.perf_counter()
    sent = 0
    while len(latencies) < count:
        while sent < count and sent - len(latencies) < window:
            open_calls.append((time.perf_counter(), send()))
            sent += 1
        at, call = open_calls[len(latencies)]
        result(call)
        latencies.append(time.perf_counter() - at)
    return latencies, time.perf_counter() - begin
