"""Executors: as threads of a notebook or program, or as a process (``python -m workers.executor``)."""

from __future__ import annotations

import argparse
import importlib
import inspect
import logging
import sys
from contextlib import ExitStack
from pathlib import Path

from coflows.connecting import open_client, which_user
from coflows.errors import CoflowsError, ConfigurationError
from coflows.workflow.colonies.colonies import Colonies
from coflows.workflow.colonies.executor import Executor
from workers.handle import WorkerHandle, run_until_signal
from workers.process import start_logs

__all__ = ["Executor", "main"]


def main() -> None:
    """Run executors of one type until SIGTERM or Ctrl-C; without a type, only coordinate the colony."""
    parser = argparse.ArgumentParser(prog="python -m workers.executor", description=main.__doc__)
    parser.add_argument("--user", help="as whom (or COFLOWS_USER)")
    parser.add_argument("--broker", help="broker URL (or COFLOWS_BROKER_URL)")
    parser.add_argument("--store", help="store URL (or COFLOWS_STORE_URL)")
    parser.add_argument("--colony", required=True, help="the colony")
    parser.add_argument("--type", dest="executortype", help="the executor type")
    parser.add_argument("--owner", help="user id of the colony's owner, when it is another's")
    parser.add_argument("--trust", action="append", default=[], metavar="USER_ID", help="run code that this user ships")
    parser.add_argument(
        "--functions", action="append", default=[], metavar="MODULE", help="register a module's functions"
    )
    parser.add_argument("--concurrency", type=int, default=1, help="steps at once")
    parser.add_argument("--processes", action="store_true", help="run each step in a process of its own")
    parser.add_argument("--no-coordinate", action="store_true", help="leave the colony's runs to other processes")
    given = parser.parse_args()
    start_logs(given.broker, given.store, {})
    try:
        _run(given)
    except CoflowsError as error:
        logging.getLogger("workers").error("%s", error)
        sys.exit(error.exit_code)


def _run(given: argparse.Namespace) -> None:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    with ExitStack() as exit_stack:
        cl = exit_stack.enter_context(open_client(which_user(given.user), given.broker, given.store))
        handles: list[WorkerHandle] = []
        if given.executortype is None:
            Colonies(cl).coordinate(given.colony)
        else:
            executor = Executor(
                cl,
                given.colony,
                given.executortype,
                given.owner,
                given.trust,
                given.concurrency,
                runs_in="process" if given.processes else "thread",
                coordinate=not given.no_coordinate,
            )
            for name in given.functions:
                _register(executor, name)
            handles.append(WorkerHandle(executor.start().stop))
        sys.stdout.write(f"Ready: user {cl.user_id} on {cl.broker.url}.\n")
        sys.stdout.flush()
        run_until_signal(handles)


def _register(executor: Executor, module: str) -> None:
    try:
        found = importlib.import_module(module)
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f"--functions {module} does not import: {type(error).__name__}: {error}.",
            hint="It is the name of a module that is here or installed, without .py.",
        ) from error
    for name, function in vars(found).items():
        if inspect.isfunction(function) and function.__module__ == found.__name__ and not name.startswith("_"):
            executor.register(function)


if __name__ == "__main__":
    main()
