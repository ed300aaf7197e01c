"""The processes: thin over coflows. Each ``run_*`` returns a handle with ``stop()``."""

from workers.dispatch_worker import run_dispatch_worker_thread, run_dispatch_worker_threads
from workers.get_instance_worker import run_get_instance_worker_thread
from workers.handle import WorkerHandle

__all__ = [
    "WorkerHandle",
    "run_dispatch_worker_thread",
    "run_dispatch_worker_threads",
    "run_get_instance_worker_thread",
]
