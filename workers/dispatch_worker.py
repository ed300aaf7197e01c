"""Dispatch workers: as threads of a notebook or program, or as a process (``python -m workers.dispatch_worker``)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from coflows.client import Client
from coflows.dispatch.worker import DispatchWorker
from coflows.serving import DISPATCH_POINT
from workers.handle import WorkerHandle

logger = logging.getLogger(__name__)


def run_dispatch_worker_thread(
    cl: Client,
    dispatch_point: str = DISPATCH_POINT,
    flow_modules_base_path: str | Path | None = None,
    concurrency: int = 8,
    secrets: Mapping[str, str] | None = None,
) -> WorkerHandle:
    """Work off the messages of the user's dispatch point, in threads of this process.

    ``flow_modules_base_path`` is where flow classes are looked for besides sys.path and the shipped modules;
    ``concurrency`` how many turns run at once (those that wait do not count); ``secrets`` reach flows as
    ``flow.secrets`` and nothing else. Ends with ``stop()`` of the handle, or when the client closes.
    """
    base_paths = () if flow_modules_base_path is None else (Path(flow_modules_base_path),)
    worker = DispatchWorker(cl, dispatch_point, concurrency=concurrency, base_paths=base_paths, secrets=secrets)
    cl.on_close(worker.stop)
    logger.info("Dispatch worker started in attached thread.")
    logger.info("dispatch_point: %s", dispatch_point)
    return WorkerHandle(worker.stop)


def run_dispatch_worker_threads(
    cl: Client,
    num_workers: int,
    dispatch_point: str = DISPATCH_POINT,
    flow_modules_base_path: str | Path | None = None,
    concurrency: int = 8,
    secrets: Mapping[str, str] | None = None,
) -> list[WorkerHandle]:
    """``num_workers`` dispatch workers that share the dispatch point; see ``run_dispatch_worker_thread``."""
    return [
        run_dispatch_worker_thread(cl, dispatch_point, flow_modules_base_path, concurrency, secrets)
        for _ in range(num_workers)
    ]


if __name__ == "__main__":
    from workers.process import main

    main(dispatch=True, door=False)
