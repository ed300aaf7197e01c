"""Get_instance workers: as a thread of a notebook or program, or as a process (``python -m ...``)."""

from __future__ import annotations

import logging
from pathlib import Path

from coflows.client import Client
from coflows.doorkeeper import Doorkeeper
from workers.handle import WorkerHandle

logger = logging.getLogger(__name__)


def run_get_instance_worker_thread(cl: Client, flow_modules_base_path: str | Path | None = None) -> WorkerHandle:
    """Answer other users who fetch instances of this user's flows, in threads of this process.

    Ends with ``stop()`` of the handle, or when the client closes.
    """
    base_paths = () if flow_modules_base_path is None else (Path(flow_modules_base_path),)
    doorkeeper = Doorkeeper(cl, base_paths=base_paths)
    cl.on_close(doorkeeper.stop)
    logger.info("get_instances worker started in attached thread for user %s.", cl.user_id)
    return WorkerHandle(doorkeeper.stop)


if __name__ == "__main__":
    from workers.process import main

    main(dispatch=False, door=True)
