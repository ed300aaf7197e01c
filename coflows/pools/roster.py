"""Which worker of a process pool does which task, and which worker is ended: decided without I/O.

A worker that waits for others (a composite flow for its subflows) does not count as working: another one takes its
place, so that workers that wait for each other's tasks do not stop the pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")


class Why(Enum):
    """Why a task fails."""

    EXPIRED = auto()
    """It ran for longer than it may."""
    DIED = auto()
    """Its worker died over it."""
    UNSTARTED = auto()
    """A worker died before it was ready."""
    CLOSED = auto()
    """The pool was closed."""


@dataclass(frozen=True, slots=True)
class Start:
    """Start this worker; say ``ready`` or ``died`` of it."""

    worker: int


@dataclass(frozen=True, slots=True)
class Give(Generic[T]):
    """Let the worker do the task; say ``ended`` or ``died`` of it."""

    worker: int
    task: T


@dataclass(frozen=True, slots=True)
class Kill:
    """End the worker; say ``died`` of it."""

    worker: int


@dataclass(frozen=True, slots=True)
class Fail(Generic[T]):
    """The task is over without a result."""

    task: T
    why: Why


Command = Start | Give[T] | Kill | Fail[T]


class Phase(Enum):
    """What a worker is at."""

    STARTING = auto()
    IDLE = auto()
    WORKING = auto()
    PAUSED = auto()
    ENDING = auto()


@dataclass(slots=True)
class _Worker(Generic[T]):
    phase: Phase = Phase.STARTING
    task: T | None = None
    deadline: float | None = None
    owner: str = ""


class Roster(Generic[T]):
    """At most ``limit`` workers that start, are idle or work, and at most ``paused_limit`` more because others are
    paused. Tasks are hashable, each is submitted once, and are begun in the order of submitting. Times are those of
    one monotonic clock, in seconds. Every method gives commands, to be carried out in order. Not thread-safe.

    Tasks of one owner (``""``: of nobody) are worked on by all workers but one, if there are several: the others'
    go on."""

    def __init__(self, limit: int, paused_limit: int) -> None:
        self.limit = limit
        self.paused_limit = paused_limit
        self.closed = False
        self._waiting: dict[T, tuple[float | None, str]] = {}
        self._workers: dict[int, _Worker[T]] = {}
        self._started = 0

    # -- tasks -------------------------------------------------------------------------------------------------

    def submit(self, task: T, timeout: float | None, now: float, owner: str = "") -> list[Command[T]]:
        """A task that may run for ``timeout`` seconds, counted from when a worker begins it."""
        if self.closed:
            return [Fail(task, Why.CLOSED)]
        self._waiting[task] = (timeout, owner)
        return self._staffed(now)

    def cancel(self, task: T, now: float) -> list[Command[T]]:
        """Nobody wants the task any more; nothing happens when it is over."""
        if task in self._waiting:
            del self._waiting[task]
            return []
        number = self.worker_of(task)
        return [] if number is None else [self._kill(number), *self._staffed(now)]

    def expire(self, now: float) -> list[Command[T]]:
        """End the tasks whose time is over."""
        late = [number for number, one in self._workers.items() if one.deadline is not None and one.deadline <= now]
        commands: list[Command[T]] = []
        for number in late:
            task = self._workers[number].task
            assert task is not None
            commands += [self._kill(number), Fail(task, Why.EXPIRED)]
        return [*commands, *self._staffed(now)] if late else []

    @property
    def next_deadline(self) -> float | None:
        """When ``expire`` is to be called next, if nothing else happens before."""
        return min((one.deadline for one in self._workers.values() if one.deadline is not None), default=None)

    # -- workers -----------------------------------------------------------------------------------------------

    def ready(self, worker: int, now: float) -> list[Command[T]]:
        """The worker has started."""
        self._to(worker, Phase.STARTING, Phase.IDLE)
        return self._staffed(now)

    def ended(self, worker: int, now: float) -> list[Command[T]]:
        """The worker is done with its task, well or not, and can do another."""
        one = self._workers[worker]
        if one.phase in (Phase.WORKING, Phase.PAUSED):
            one.phase, one.task, one.deadline = Phase.IDLE, None, None
        return self._staffed(now)

    def pause(self, worker: int, now: float) -> list[Command[T]]:
        """The worker's task waits for something that other workers may have to do."""
        self._to(worker, Phase.WORKING, Phase.PAUSED)
        return self._staffed(now)

    def resume(self, worker: int) -> list[Command[T]]:
        """The worker's task goes on."""
        self._to(worker, Phase.PAUSED, Phase.WORKING)
        return []

    def died(self, worker: int, now: float) -> list[Command[T]]:
        """The worker is gone, whether it was to end or not."""
        one = self._workers.pop(worker)
        commands: list[Command[T]] = []
        if one.phase is Phase.STARTING and self._waiting:
            # Else a worker that cannot start would be started for ever.
            first = next(iter(self._waiting))
            del self._waiting[first]
            commands.append(Fail(first, Why.UNSTARTED))
        elif one.task is not None:
            commands.append(Fail(one.task, Why.DIED))
        return [*commands, *self._staffed(now)]

    def close(self) -> list[Command[T]]:
        """End everything."""
        self.closed = True
        commands: list[Command[T]] = [Fail(task, Why.CLOSED) for task in self._waiting]
        self._waiting.clear()
        for number, one in self._workers.items():
            if one.phase is not Phase.ENDING:
                if one.task is not None:
                    commands.append(Fail(one.task, Why.CLOSED))
                commands.append(self._kill(number))
        return commands

    def worker_of(self, task: T) -> int | None:
        """The worker that does the task."""
        return next((number for number, one in self._workers.items() if one.task == task), None)

    def task_of(self, worker: int) -> T | None:
        """The task that the worker does."""
        one = self._workers.get(worker)
        return None if one is None else one.task

    @property
    def phases(self) -> dict[int, Phase]:
        """What each worker is at."""
        return {number: one.phase for number, one in self._workers.items()}

    # ----------------------------------------------------------------------------------------------------------

    def _to(self, worker: int, before: Phase, after: Phase) -> None:
        one = self._workers[worker]
        if one.phase is before:
            one.phase = after

    def _kill(self, number: int) -> Kill:
        one = self._workers[number]
        one.phase, one.task, one.deadline = Phase.ENDING, None, None
        return Kill(number)

    def _next(self) -> T | None:
        """The task that is to be begun next."""
        owners = [one.owner for one in self._workers.values() if one.phase is Phase.WORKING and one.owner]
        share = max(1, self.limit - 1)
        full = {owner for owner in owners if owners.count(owner) >= share}
        return next((task for task, (_, owner) in self._waiting.items() if owner not in full), None)

    def _staffed(self, now: float) -> list[Command[T]]:
        """Give what waits to who is idle; start or end workers as there are too few or too many."""
        commands: list[Command[T]] = []
        idle = [number for number, one in self._workers.items() if one.phase is Phase.IDLE]
        counts = dict.fromkeys(Phase, 0)
        for one in self._workers.values():
            counts[one.phase] += 1
        while idle and counts[Phase.WORKING] < self.limit and (task := self._next()) is not None:
            timeout, owner = self._waiting.pop(task)
            number = idle.pop()
            one = self._workers[number]
            one.phase, one.task, one.owner = Phase.WORKING, task, owner
            one.deadline = None if timeout is None else now + timeout
            counts[Phase.WORKING] += 1
            commands.append(Give(number, task))
        present = counts[Phase.STARTING] + counts[Phase.WORKING] + len(idle)
        for number in idle[: max(0, present - self.limit)]:
            commands.append(self._kill(number))
        room = min(self.limit - present, self.limit + self.paused_limit - present - counts[Phase.PAUSED])
        for _ in range(min(room, len(self._waiting) - counts[Phase.STARTING])):
            self._started += 1
            self._workers[self._started] = _Worker()
            commands.append(Start(self._started))
        return commands
