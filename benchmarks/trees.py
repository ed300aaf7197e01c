"""How long it takes to fetch an instance with many subflows, at one user or many."""

from __future__ import annotations

import statistics
import time

from benchmarks.report import Figure
from coflows import start_users
from coflows.serving import get_flow_instance, serve_flow
from workers import run_get_instance_worker_thread


def fetch_seconds(broker_url: str | None, subflows: int, owners: int, times: int) -> list[float]:
    """Seconds of each fetch of a flow with ``subflows`` subflows, dealt out over ``owners`` users."""
    users = start_users(owners + 1, broker_url)
    try:
        caller, others = users[0], users[1:]
        for cl in others:
            run_get_instance_worker_thread(cl)
            serve_flow(cl, "EchoFlowModule.EchoFlow", "leaf")
        serve_flow(caller, "benchmarks.flows.Wide", "wide")
        config = {
            f"s{number}": {"user_id": others[number % owners].user_id, "flow_endpoint": "leaf"}
            for number in range(subflows)
        }
        taken = []
        for _ in range(times):
            begin = time.perf_counter()
            get_flow_instance(caller, "wide", config_overrides={"subflows_config": config})
            taken.append(time.perf_counter() - begin)
        return taken
    finally:
        for cl in reversed(users):
            cl.close()


def singleton_seconds(broker_url: str | None, times: int) -> list[float]:
    """Seconds of each fetch of another user's singleton."""
    owner, caller = users = start_users(2, broker_url)
    try:
        run_get_instance_worker_thread(owner)
        serve_flow(owner, "EchoFlowModule.EchoFlow", "leaf", singleton=True)
        taken = []
        for _ in range(times + 1):
            begin = time.perf_counter()
            get_flow_instance(caller, "leaf", owner.user_id)
            taken.append(time.perf_counter() - begin)
        return taken[1:]
    finally:
        for cl in reversed(users):
            cl.close()


SHAPES = ((1, 1, ""), (10, 2, ""), (100, 1, ""), (100, 10, "at most 100"))
"""Subflows, owners, and the milliseconds asked for on RabbitMQ."""


def figures(name: str, broker_url: str | None, rounds: int) -> list[Figure]:
    """Fetching trees of all shapes."""
    single = statistics.median(singleton_seconds(broker_url, 5 * rounds))
    found = [Figure(f"{name}: get_flow_instance, a remote singleton", single * 1e3, "ms", asked="at most 5")]
    for subflows, owners, asked in SHAPES:
        taken = statistics.median(fetch_seconds(broker_url, subflows, owners, rounds))
        what = f"{name}: get_flow_instance, {subflows} subflow(s) at {owners} user(s)"
        found.append(Figure(what, taken * 1e3, "ms", asked=asked))
    return found
