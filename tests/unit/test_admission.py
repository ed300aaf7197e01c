"""Admission: order within a lane, exclusion, concurrency, and no job is forgotten."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coflows.dispatch.admission import Admission
from coflows.dispatch.batch import MAX_BATCH, Batch, Resume, Start

CONCURRENCY = 2


class Machine(RuleBasedStateMachine):
    """A model that only knows which jobs arrived in which lane, and checks each command against it."""

    def __init__(self) -> None:
        super().__init__()
        self.admission: Admission[int] = Admission(CONCURRENCY)
        self.lanes: dict[str, list[int]] = {}
        self.lane_of: dict[int, str] = {}
        self.running: list[Batch[int]] = []
        self.paused: list[Batch[int]] = []
        self.resuming: list[Batch[int]] = []
        self.released: list[Batch[int]] = []
        self.elsewhere: list[Batch[int]] = []
        self.begun: dict[int, list[int]] = {}
        self.fresh: list[Batch[int]] = []
        self.held: set[str] = set()
        self.count = 0

    @property
    def batches(self) -> list[Batch[int]]:
        return [*self.running, *self.paused, *self.resuming, *self.released, *self.elsewhere]

    @property
    def waiting(self) -> list[str]:
        """Lanes of which something could begin."""
        taken = {lane for batch in self.batches for lane in batch.lanes}
        return [name for name, jobs in self.lanes.items() if jobs and name not in taken | self.held]

    def begin_with(self, batch: Batch[int]) -> None:
        """It is no longer one that can begin all that waits."""
        if batch in self.fresh:
            self.fresh.remove(batch)

    def obey(self, commands: list[Start[int] | Resume[int]]) -> None:
        for command in commands:
            batch = command.batch
            if isinstance(command, Resume):
                assert self.resuming.pop(0) is batch, "who waits longest goes on first"
            else:
                assert not self.resuming, "nothing starts while something could go on"
                assert self.waiting, "nothing starts for nothing"
                assert not self.fresh, "one fresh batch is enough"
                self.begun[id(batch)] = []
                self.fresh.append(batch)
            self.running.append(batch)

    @rule(lanes=st.lists(st.sampled_from("abcd"), max_size=5))
    def arrive(self, lanes: list[str]) -> None:
        jobs = []
        for lane in lanes:
            self.count += 1
            self.lanes.setdefault(lane, []).append(self.count)
            self.lane_of[self.count] = lane
            jobs.append((lane, self.count))
        self.obey(self.admission.arrive(jobs))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.running))
        begun, waiting = self.begun[id(batch)], self.waiting
        job = self.admission.next(batch)
        self.begin_with(batch)
        if job is None:
            assert not batch.open or not waiting or len(begun) == MAX_BATCH, "it begins what there is"
            return
        assert len(begun) < MAX_BATCH
        name = self.lane_of[job]
        lane = self.lanes[name]
        before = [one for one in begun if self.lane_of[one] == name]
        assert [*before, job] == lane[: len(before) + 1], "in order, and nothing is left out"
        assert name not in self.held, "nothing of a lane that is held begins"
        for other in self.batches:
            assert other is batch or name not in other.lanes, "no lane is in two batches"
        begun.append(job)

    @precondition(lambda self: self.batches)
    @rule(data=st.data(), fails=st.booleans())
    def end(self, data: st.DataObject, fails: bool) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        for place in (self.running, self.paused, self.resuming, self.released, self.elsewhere):
            if batch in place:
                place.remove(batch)
        begun = self.begun.pop(id(batch))
        again = [(self.lane_of[job], job) for job in begun] if fails else []
        if not fails:
            for job in begun:
                self.lanes[self.lane_of[job]].remove(job)
        self.begin_with(batch)
        self.obey(self.admission.end(batch, again))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.running))
        self.running.remove(batch)
        self.released.append(batch)
        self.begin_with(batch)
        self.obey(self.admission.release(batch))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.running))
        begun = self.begun[id(batch)]
        if not begun or sum(self.lane_of[one] == self.lane_of[begun[-1]] for one in begun) > 1:
            return
        job = begun.pop()
        alone = self.admission.detach(batch, self.lane_of[job])
        assert list(alone.lanes) == [self.lane_of[job]] and self.lane_of[job] not in batch.lanes
        self.elsewhere.append(alone)
        self.begun[id(alone)] = [job]

    @rule(lane=st.sampled_from("abcd"))
    def hold(self, lane: str) -> None:
        self.admission.hold(lane)
        self.held.add(lane)

    @rule(lane=st.sampled_from("abcd"), adopts=st.booleans())
    def let_loose(self, lane: str, adopts: bool) -> None:
        self.held.discard(lane)
        if not adopts or self.lanes.get(lane):
            self.obey(self.admission.let_loose(lane))
            return
        self.count += 1
        self.lanes[lane] = [self.count]
        self.lane_of[self.count] = lane
        self.obey(self.admission.let_loose(lane, self.count))

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.batches))
        self.begin_with(batch)
        self.obey(self.admission.let_go(batch))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.running))
        self.running.remove(batch)
        self.paused.append(batch)
        self.begin_with(batch)
        self.obey(self.admission.pause(batch))

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.paused))
        self.paused.remove(batch)
        self.resuming.append(batch)
        self.obey(self.admission.resume(batch))

    @rule(lane=st.sampled_from("abcd"))
    def withdraw(self, lane: str) -> None:
        jobs = self.lanes.get(lane, [])
        held = {job for begun in self.begun.values() for job in begun}
        expected = [job for job in jobs if job not in held]
        assert self.admission.withdraw(list(jobs)) == expected
        self.lanes[lane] = [job for job in jobs if job in held]

    @invariant()
    def no_slot_is_idle_while_work_waits(self) -> None:
        assert len(self.running) + self.admission.free == CONCURRENCY
        goes_on = any(batch.open for batch in self.running)
        assert not (self.admission.free and ((self.waiting and not goes_on) or self.resuming))


TestAdmission = Machine.TestCase
TestAdmission.settings = settings(max_examples=200, stateful_step_count=50, deadline=None)
