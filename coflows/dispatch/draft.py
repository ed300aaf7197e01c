"""What the turns of one batch will commit together: gathered turn by turn, taken when it is to be written."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from coflows.dispatch.job import Job
from coflows.dispatch.records import Outgoing


@dataclass(slots=True)
class Content:
    """One commit to be, of turns of one flow or many: its writes, deletes and conditions; the jobs that it ends, and
    what each of them sent."""

    writes: dict[str, bytes] = field(default_factory=dict)
    deletes: dict[str, None] = field(default_factory=dict)
    conditions: dict[str, int] = field(default_factory=dict)
    orders: dict[str, tuple[int, float]] = field(default_factory=dict)
    """How far the messages of a stream are worked off then, and when the last of them was sent."""
    turns: list[tuple[Job, list[Outgoing]]] = field(default_factory=list)
    due: list[float] = field(default_factory=list)
    """When the timers are due that it sets."""
    flows: set[str] = field(default_factory=set)
    """The instances whose turns these were."""

    @property
    def parked(self) -> bool:
        """Whether one of the turns is of a message that only the store has."""
        return any(job.parked is not None for job, _ in self.turns)

    def add(
        self,
        job: Job,
        sent: list[Outgoing],
        writes: Mapping[str, bytes],
        deletes: Iterable[str],
        conditions: Mapping[str, int],
    ) -> None:
        """One more turn."""
        self.turns.append((job, sent))
        for key in deletes:
            self.writes.pop(key, None)
            self.deletes[key] = None
        if self.deletes:
            for key in writes:
                self.deletes.pop(key, None)
        self.writes.update(writes)
        self.conditions.update(conditions)


class Draft:
    """The contents of one batch's commits, one after the other. Thread-safe: the thread that runs the turns adds,
    another may write what is finished while a turn takes its time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.broken = False
        """A commit was refused: what was built on it must not be written."""
        self._content = Content()
        self._written = threading.Event()
        self._written.set()

    def content(self) -> Content:
        """What was gathered since the last ``take``; for the holder of ``lock``."""
        return self._content

    def take(self) -> Content | None:
        """Give what was gathered, to be written now; None when there is nothing. Waits for the commit before, so that
        no commit is written on top of one that was refused. Call ``wrote`` when the outcome is known."""
        while True:
            self._written.wait()
            with self.lock:
                if not self._written.is_set():
                    continue  # Another thread was first.
                taken, self._content = self._content, Content()
                if not taken.turns:
                    return None
                self._written.clear()
                return taken

    def wrote(self, *, refused: bool) -> None:
        """The outcome of what was taken."""
        self.broken = self.broken or refused
        self._written.set()

    def wait(self) -> None:
        """Wait until nothing is being written."""
        self._written.wait()
