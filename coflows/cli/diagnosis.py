"""What ``coflows doctor`` looks at: keys, store, broker with a message to oneself, workers of what is served, clock."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coflows.cli.context import Options, counted
from coflows.errors import CoflowsError, IdentityError

if TYPE_CHECKING:
    from coflows.client import Client

EARLIEST = 1_750_000_000
"""A clock before this (mid 2025) is wrong: envelopes would look expired to others."""

ANSWER = 3.0
"""Seconds within which a get_instance worker that is alive answers."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    text: str
    exit_code: int = 1


def diagnose(options: Options) -> list[Check]:
    """Look at everything; one failure does not hide the others."""
    from coflows.connecting import open_client

    checks = [_check("keys", lambda: f"user {options.user_name()!r} in {options.settings.home}")]
    if checks[0].ok:
        try:
            name = options.user_name()
            cl = open_client(name, options.broker_url, options.store_url, passphrase=options.passphrase(name))
        except IdentityError as error:
            checks[0] = Check("keys", False, str(error), error.exit_code)
        except CoflowsError as error:
            checks.append(Check("store", False, str(error), error.exit_code))
        else:
            with cl:
                checks.append(_check("store", lambda: _try_store(cl)))
                checks.append(_check("broker", lambda: _try_broker(cl)))
                points = _points_served(cl) if all(one.ok for one in checks) else {}
                if points:
                    checks.append(_check("workers", lambda: _look_for_workers(cl, points)))
    checks.append(Check("clock", time.time() > EARLIEST, time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())))
    return checks


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except CoflowsError as error:
        return Check(name, False, str(error), error.exit_code)


def _try_store(cl: Client) -> str:
    key = f"doctor:{secrets.token_hex(8)}"
    cl.create_entry(key, "well")
    cl.delete_entry(key)
    return f"{cl.store.url} can be read and written"


def _try_broker(cl: Client) -> str:
    from coflows.broker.base import QueueSpec

    queue = QueueSpec(f"coflows.{cl.user_id}.doctor.{secrets.token_hex(8)}", expires=60)
    broker = cl.broker
    broker.declare(queue)
    try:
        broker.publish(queue.name, b"well")
        delivery = broker.get(queue.name)
        if delivery is None or delivery.body != b"well":
            raise CoflowsError(f"{broker.url} lost a message to oneself.", hint="Look at its log.")
        delivery.ack()
    finally:
        broker.delete(queue.name)
    return f"{broker.url} took and gave a message"


def _points_served(cl: Client) -> dict[str, list[str]]:
    """The endpoints that are served, by dispatch point; executors come and go as their colonies need them."""
    from coflows.endpoints import endpoint_names, find_endpoints
    from coflows.futures import COLONY

    points: dict[str, list[str]] = {}
    for endpoint in find_endpoints(cl.store, endpoint_names(cl.store)).values():
        if endpoint.served and (not endpoint.internal or endpoint.dispatch_point.startswith(COLONY)):
            points.setdefault(endpoint.dispatch_point, []).append(endpoint.name)
    return points


def _look_for_workers(cl: Client, points: dict[str, list[str]]) -> str:
    from coflows.dispatch.membership import alive_workers, refused_by_workers
    from coflows.futures import COLONY, starts_worker

    lacking: dict[str, str] = {}
    for point, names in points.items():
        if not alive_workers(cl.store, point):
            lacking[f"no dispatch worker for {point!r} (nobody answers at {', '.join(names)})"] = starts_worker(point)
    if not all(point.startswith(COLONY) for point in points) and not _door_answers(cl):
        lacking["no get_instance worker (other users cannot fetch)"] = "`coflows worker all`"
    if lacking:
        commands = dict.fromkeys(lacking.values())
        if any(one.startswith("`coflows worker all --") for one in commands):
            commands.pop("`coflows worker all`", None)
        raise CoflowsError(f"There is {' and '.join(lacking)}.", hint=f"Run: {', '.join(commands)}")
    refused: Counter[str] = Counter()
    for point in points:
        refused |= refused_by_workers(cl.store, point)  # Workers of one process count for all its points.
    said = ", ".join(f"{count} x {code}" for code, count in sorted(refused.items()))
    told = f"; since they started they have refused {said} (see coflows dlq list, and their log)" if said else ""
    return f"{counted(sum(map(len, points.values())), 'endpoint')} served, and workers are there{told}"


def _door_answers(cl: Client) -> bool:
    from coflows.releasing import ask_release

    try:
        ask_release(cl, cl.user_id, []).result(ANSWER)  # Releases nothing; only who is alive answers.
    except TimeoutError:
        return False
    return True
