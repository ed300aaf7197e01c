"""A run in the user's store, where other processes of his watch it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self

from coflows.client import Client
from coflows.codec.wire import decode, encode
from coflows.errors import StoreError, WorkflowError
from coflows.model.layout import workflow_prefix
from coflows.store.base import Watch
from coflows.workflow.graph.records import Record, changes, load
from coflows.workflow.graph.value import Graph

logger = logging.getLogger(__name__)

MAX_RECORD = 1 << 20


class Published:
    """A watcher that is a context manager: while open, it writes what a run changes under ``run_id``, in a thread
    of its own; the run does not wait. All is written when it closes. What was published before under that id is
    replaced."""

    def __init__(self, cl: Client, run_id: str) -> None:
        self._store = cl.store
        self._prefix = workflow_prefix(run_id)
        self._changed = threading.Condition()
        self._unwritten: dict[str, Record | None] = {}
        self._open = False
        self._thread = threading.Thread(target=self._write, name="coflows-published", daemon=True)

    def __call__(self, graph: Graph) -> None:
        with self._changed:
            self._unwritten.update(changes(graph.delta))
            self._changed.notify()

    def __enter__(self) -> Self:
        self._store.commit(deletes=self._store.keys(self._prefix))
        self._open = True
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._open = False
            self._changed.notify()
        self._thread.join()

    def _write(self) -> None:
        """One commit for all that gathered during the one before."""
        while True:
            with self._changed:
                while self._open and not self._unwritten:
                    self._changed.wait()
                if not self._unwritten:
                    return
                taken, self._unwritten = self._unwritten, {}
            writes = {f"{self._prefix}{key}": encode(record) for key, record in taken.items() if record is not None}
            deletes = [f"{self._prefix}{key}" for key, record in taken.items() if record is None]
            try:
                self._store.commit(writes, deletes)
            except StoreError as error:
                logger.warning("What a workflow changed could not be published: %s", error)


def read_published(cl: Client, run_id: str) -> Graph:
    """A run as it was published last; raises WorkflowError when there is none."""
    prefix = workflow_prefix(run_id)
    records = {
        entry.key.removeprefix(prefix): decode(entry.value, max_bytes=MAX_RECORD) for entry in cl.store.scan(prefix)
    }
    if not records:
        raise WorkflowError(f"No workflow is published as {run_id}.", hint="Give its run Published(cl, run_id).")
    return load(records)


def watch_published(cl: Client, run_id: str, callback: Callable[[Graph], None]) -> Watch:
    """Call ``callback`` with the run as it is, soon after each time it was written, until the watch is closed; from a
    thread of the store's."""

    def changed(_keys: frozenset[str]) -> None:
        with suppress(WorkflowError):  # It is just being replaced.
            callback(read_published(cl, run_id))

    return cl.store.watch(workflow_prefix(run_id), changed)
