"""A worker as a process: runs until SIGTERM or Ctrl-C, then finishes or gives back its turns."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from coflows.client import Client
from coflows.config import load_secrets_file, load_settings, secrets_from_environment
from coflows.connecting import open_client, which_user
from coflows.errors import CoflowsError
from coflows.flows.loading import check_folder
from coflows.redaction import Redactor, redact_logs, url_secrets
from coflows.serving import DISPATCH_POINT
from workers.dispatch_worker import run_dispatch_worker_thread
from workers.get_instance_worker import run_get_instance_worker_thread
from workers.handle import WorkerHandle, run_until_signal

GC_THRESHOLDS = (50_000, 20, 100)
SWITCH_INTERVAL = 0.001
"""Seconds that a thread keeps the interpreter while others want it. A call changes threads several times, and waits so
long each time beside somebody's flood."""


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """How a worker process is run. ``dispatch_point`` None: no dispatch worker; ``door``: a get_instance worker."""

    user: str | None = None
    broker_url: str | None = field(default=None, repr=False)
    store_url: str | None = field(default=None, repr=False)
    dispatch_point: str | None = DISPATCH_POINT
    door: bool = False
    concurrency: int = 8
    secrets: Path | None = None
    flow_modules: Path | None = None
    verbose: bool = False
    passphrase: str | None = field(default=None, repr=False)


def run_process(options: ProcessOptions, ready: Callable[[Client], None]) -> None:
    """Run workers until a signal; ``ready`` is called when they run. Raises CoflowsError."""
    secrets = secrets_from_environment()
    if options.secrets is not None:
        secrets |= load_secrets_file(options.secrets)
    known = {"passphrase": options.passphrase or "", **secrets}
    start_logs(options.broker_url, options.store_url, known, verbose=options.verbose)
    check_folder(options.flow_modules)
    for folder in (options.flow_modules, Path.cwd()):
        if folder is not None and str(folder.absolute()) not in sys.path:
            sys.path.insert(0, str(folder.absolute()))
    # What is loaded by now stays; and turns leave little behind for the collector, which took a fifth of their time.
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    sys.setswitchinterval(SWITCH_INTERVAL)
    with ExitStack() as exit_stack:
        user, urls = which_user(options.user), (options.broker_url, options.store_url)
        cl = exit_stack.enter_context(open_client(user, *urls, passphrase=options.passphrase))
        handles: list[WorkerHandle] = []
        if options.dispatch_point is not None:
            handles.append(
                run_dispatch_worker_thread(
                    cl, options.dispatch_point, options.flow_modules, options.concurrency, secrets
                )
            )
        if options.door:
            handles.append(run_get_instance_worker_thread(cl, options.flow_modules))
        ready(cl)
        run_until_signal(handles)


def start_logs(
    broker_url: str | None, store_url: str | None, secrets: Mapping[str, str], *, verbose: bool = False
) -> None:
    """Log to standard error, but neither these secrets nor the passphrase and passwords of the settings and URLs."""
    settings = load_settings()
    level = "DEBUG" if verbose else settings.log_level
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("pika").setLevel(logging.CRITICAL)
    passwords = url_secrets(broker=broker_url or settings.broker_url, store=store_url or settings.store_url)
    passwords |= url_secrets(administrator=settings.broker_admin_url or "")
    passphrase = {"passphrase": settings.passphrase} if settings.passphrase else {}
    redact_logs(Redactor({**secrets, **passphrase, **passwords}))


def main(*, dispatch: bool, door: bool) -> None:
    """``python -m workers.dispatch_worker`` and ``python -m workers.get_instance_worker``."""
    parser = argparse.ArgumentParser(description="Run a worker until SIGTERM or Ctrl-C.")
    parser.add_argument("--user", help="whose worker (or COFLOWS_USER)")
    parser.add_argument("--broker", help="broker URL (or COFLOWS_BROKER_URL)")
    parser.add_argument("--store", help="store URL (or COFLOWS_STORE_URL)")
    parser.add_argument("--flow-modules", type=Path, help="folder where flow classes are looked for")
    parser.add_argument("--verbose", action="store_true")
    if dispatch:
        parser.add_argument("--dispatch-point", default=DISPATCH_POINT)
        parser.add_argument("--concurrency", type=int, default=8, help="turns at once")
        parser.add_argument("--secrets", type=Path, help="file of KEY=VALUE lines for flow.secrets")
    given = parser.parse_args()
    options = ProcessOptions(
        user=given.user,
        broker_url=given.broker,
        store_url=given.store,
        dispatch_point=given.dispatch_point if dispatch else None,
        door=door,
        concurrency=given.concurrency if dispatch else 1,
        secrets=given.secrets if dispatch else None,
        flow_modules=given.flow_modules,
        verbose=given.verbose,
    )
    try:
        run_process(options, _say_ready)
    except CoflowsError as error:
        logging.getLogger("workers").error("%s", error)
        sys.exit(error.exit_code)


def _say_ready(cl: Client) -> None:
    sys.stdout.write(f"Ready: user {cl.user_id} on {cl.broker.url}.\n")
    sys.stdout.flush()
