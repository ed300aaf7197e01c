"""Decides, without I/O, which turns may run now: in order within a lane, and at most ``concurrency`` batches at a time.

A lane is what must not run twice at once: an instance, or (for parallel endpoints) a single message. A batch begins one
ready job after the other, of one lane or many, so that its turns share one commit; the lanes stay taken until the batch
has ended. When a turn takes its time the batch begins no more, what waits starts in another, and once what it has
finished is written it has no lane but that turn's. A batch that waits for something gives its slot to others and gets
one back, before any new batch, when it goes on; so a chain of turns that wait for each other completes on one slot.

Callers take turns: of those who have something ready each is next once, whether it waits in lanes of his own or with
others' jobs in one, whose order is kept for each caller alone. No caller's jobs hold all slots, if there are several.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic

from coflows.dispatch.batch import MAX_BATCH, UNLIMITED, Batch, Commands, Job, Resume, Start
from coflows.dispatch.lanes import Lanes
from coflows.quotas.fair_queue import FairQueue


class Admission(Generic[Job]):
    """Events in, commands out. Not thread-safe: its owner serialises the events and obeys the commands.

    ``caller_of`` tells whose a job is, ``UNLIMITED`` for the owner's own."""

    def __init__(self, concurrency: int, caller_of: Callable[[Job], str] = lambda _job: UNLIMITED) -> None:
        self.free = concurrency
        self._share = max(1, concurrency - 1)
        """Slots that one caller's jobs may hold."""
        self._holding: dict[str, int] = {}
        self._full: set[str] = set()
        """Callers whose jobs hold their share."""
        self._lanes: Lanes[Job] = Lanes(caller_of)
        """What waits, none of it begun."""
        self._taken: dict[str, Batch[Job]] = {}
        self._held: set[str] = set()
        self._running: set[Batch[Job]] = set()
        self._fresh: Batch[Job] | None = None
        """The batch that was started and has begun nothing yet: it can begin all that is ready, so one is enough."""
        self._ready: FairQueue[str, str] = FairQueue()
        """The lanes that are not taken or held, by each caller who has something in them. Where several have, entries
        may be left of when it was not taken yet."""
        self._listed: set[tuple[str, str]] = set()
        """Those entries of lanes in which several callers had something."""
        self._resuming: deque[Batch[Job]] = deque()

    @property
    def idle(self) -> bool:
        """Whether no lane waits for a slot, and at most one batch runs. May be asked from any thread."""
        return not self._ready and len(self._running) - (self._fresh is not None) < 2

    @property
    def waits(self) -> bool:
        """Whether a lane is ready that no batch has. May be asked from any thread."""
        return bool(self._ready)

    def arrive(self, jobs: Iterable[tuple[str, Job]]) -> Commands[Job]:
        """Messages came, each the last of its lane."""
        for lane, job in jobs:
            if lane not in self._lanes:
                caller = self._lanes.begin(lane, job)
                if lane not in self._taken and lane not in self._held:
                    self._ready.push(caller, lane)
                continue
            for caller in self._lanes.append(lane, job, self._full):
                if lane not in self._taken and lane not in self._held:
                    self._list(caller, lane)
        return self._fill()

    def next(self, batch: Batch[Job]) -> Job | None:
        """Begin the next job of a running batch: of the lane that it is in, or of the next that is ready. None when it
        is to begin no more."""
        if batch is self._fresh:
            self._fresh = None
        if self._full:
            self._discount(batch)
        lane = self._next_lane(batch) if batch.open and batch.begun < MAX_BATCH else None
        if lane is None:
            self._discount(batch)
            return None
        batch.lane = lane
        caller, job = self._lanes.pop(lane, self._full)
        batch.begun += 1
        if caller != batch.caller or not batch.counts:
            self._discount(batch)
            batch.caller = caller
            self._count(batch)
        return job

    def _next_lane(self, batch: Batch[Job]) -> str | None:
        """Where the batch goes on: in its lane, unless it is another caller's turn; then with what is ready, then with
        what it has left."""
        goes_on = batch.lane in self._lanes and self._may_begin(batch, batch.lane)
        if goes_on and not self._ready.waits(self._full, batch.caller):
            if not batch.left:
                return batch.lane
        elif (lane := self._take_ready()) is not None:
            if goes_on:
                batch.left.append(batch.lane)
            batch.lanes.add(lane)
            self._taken[lane] = batch
            return lane
        if goes_on:
            batch.left.append(batch.lane)
        while batch.left:
            lane = batch.left.popleft()
            if self._may_begin(batch, lane):
                return lane
        return None

    def _may_begin(self, batch: Batch[Job], lane: str) -> bool:
        return lane in batch.lanes and lane not in self._held and self._lanes.may_begin(lane, self._full)

    def _take_ready(self) -> str | None:
        """A lane that is ready, with something of a caller whose turn it is."""
        while (found := self._ready.pop(self._full)) is not None:
            if self._listed:
                self._listed.discard(found)
            caller, lane = found
            if lane not in self._taken and lane not in self._held and caller in self._lanes.owners(lane):
                return lane
        return None

    def release(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch's thread is done with it, its commit is on the way: the slot is free, the lanes are not."""
        self._discount(batch)
        self._give_slot(batch)
        return self._fill()

    def detach(self, batch: Batch[Job], lane: str) -> Batch[Job]:
        """A job that was begun goes on somewhere that takes no slot: it becomes a batch of its own, which has the lane
        until its ``end``; the others go on without it."""
        alone: Batch[Job] = Batch({lane}, lane, 1, open=False, caller=batch.caller)
        batch.lanes.remove(lane)
        self._taken[lane] = alone
        return alone

    def join(self, batches: Iterable[Batch[Job]]) -> Batch[Job]:
        """Detached batches whose jobs end together are one from now on."""
        joined: Batch[Job] = Batch(open=False)
        for batch in batches:
            joined.lanes |= batch.lanes
            batch.lanes.clear()
        for lane in joined.lanes:
            self._taken[lane] = joined
        return joined

    def let_go(self, batch: Batch[Job]) -> Commands[Job]:
        """The batch begins no more; what waits may start in another."""
        batch.open = False
        if batch is self._fresh:
            self._fresh = None
        return self._fill()

    def abandon(self, batch: Batch[Job]) -> Commands[Job]:
        """A running batch's thread does not come back from its job: its slot is free, and it counts for its caller
        until its ``end``."""
        self._give_slot(batch)
        return self.let_go(batch)

    def shed(self, batch: Batch[Job], again: Iterable[tuple[str, Job]] = ()) -> Commands[Job]:
        """What a batch that begins no more has finished is decided: it keeps the lane that it is in, and others may
        have the rest; ``again`` are the first of their lanes, of those."""
        lanes = batch.lanes - {batch.lane}
        batch.lanes -= lanes
        batch.left.clear()
        self._give_lanes(lanes, again)
        return self._fill()

    def end(self, batch: Batch[Job], again: Iterable[tuple[str, Job]] = ()) -> Commands[Job]:
        """The batch is over, whether it was running, paused or released; ``again`` are the first of their lanes."""
        self._discount(batch)
        self._give_slot(batch)
        if batch in self._resuming:
            self._resuming.remove(batch)
        lanes, batch.lanes = batch.lanes, set()
        self._give_lanes(lanes, again)
        batch.open = False
        return self._fill()

    def pause(self, batch: Batch[Job]) -> Commands[Job]:
        """A batch that runs, or is about to go on, waits for something; its lanes stay taken, its slot does not."""
        self._discount(batch)
        self._give_slot(batch)
        if batch in self._resuming:
            self._resuming.remove(batch)
        return self.let_go(batch)

    def resume(self, batch: Batch[Job]) -> Commands[Job]:
        """A paused batch could go on; it may when Resume comes."""
        self._resuming.append(batch)
        return self._fill()

    def hold(self, lane: str) -> None:
        """Begin nothing of a lane until ``let_loose``; what was begun goes on."""
        self._held.add(lane)
        self._unlist({lane})

    def let_loose(self, lane: str, first: Job | None = None) -> Commands[Job]:
        """A lane is not held any more; ``first``: what goes before all that waits there."""
        self._held.discard(lane)
        if first is not None:
            self._lanes.put_first(lane, first)
        if lane not in self._taken:
            self._unlist({lane})
            self._make_ready(lane)
        return self._fill()

    def withdraw(self, jobs: Iterable[Job]) -> list[Job]:
        """Forget those of the jobs that were not begun; gives them. The others go on."""
        gone, lanes = self._lanes.withdraw(set(jobs))
        changed = {lane for lane in lanes if lane not in self._taken and lane not in self._held}
        if changed:
            self._unlist(changed)
            for lane in changed:
                self._make_ready(lane)
        return gone

    def _give_lanes(self, lanes: Iterable[str], again: Iterable[tuple[str, Job]]) -> None:
        for lane, job in reversed(list(again)):
            self._lanes.put_first(lane, job)
        for lane in lanes:
            del self._taken[lane]
            self._make_ready(lane)

    def _make_ready(self, lane: str) -> None:
        """A lane is not taken any more: it waits for a turn of each caller who has something in it."""
        if lane in self._lanes and lane not in self._held:
            owners = self._lanes.open_up(lane, self._full)
            for caller in owners:
                if len(owners) == 1:
                    self._ready.push(caller, lane)
                else:
                    self._list(caller, lane)

    def _list(self, caller: str, lane: str) -> None:
        if (caller, lane) not in self._listed:
            self._listed.add((caller, lane))
            self._ready.push(caller, lane)

    def _unlist(self, lanes: set[str]) -> None:
        self._ready.discard(lanes)
        self._listed = {one for one in self._listed if one[1] not in lanes}

    def _count(self, batch: Batch[Job]) -> None:
        caller = batch.caller
        if caller != UNLIMITED:
            batch.counts = True
            held = self._holding[caller] = self._holding.get(caller, 0) + 1
            if held >= self._share and caller not in self._full:
                self._full.add(caller)
                for lane in self._lanes.open_up_behind(caller):
                    if lane not in self._taken and lane not in self._held:
                        self._unlist({lane})
                        self._make_ready(lane)

    def _discount(self, batch: Batch[Job]) -> None:
        if not batch.counts:
            return
        batch.counts, caller = False, batch.caller
        held = self._holding[caller] = self._holding[caller] - 1
        if held < self._share:
            self._full.discard(caller)
        if not held:
            del self._holding[caller]

    def _give_slot(self, batch: Batch[Job]) -> None:
        if batch is self._fresh:
            self._fresh = None
        if batch in self._running:
            self._running.remove(batch)
            self.free += 1

    def _fill(self) -> Commands[Job]:
        commands: Commands[Job] = []
        while self.free and (self._resuming or (self._fresh is None and self._ready.waits(self._full))):
            self.free -= 1
            if self._resuming:
                batch = self._resuming.popleft()
                self._count(batch)
                commands.append(Resume(batch))
            else:
                batch = self._fresh = Batch()
                commands.append(Start(batch))
            self._running.add(batch)
        return commands
