"""Admission under all events at once, among several callers: what may begin is there to be begun, nothing is begun
twice, and nothing is left when all is over."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from coflows.dispatch.admission import Admission
from coflows.dispatch.batch import UNLIMITED, Batch, Commands, Resume

Job = tuple[str, str, int]
"""Caller, lane and number."""
CALLERS = (UNLIMITED, "A", "B", "C")
LANES = "wxyz"


class Machine(RuleBasedStateMachine):
    """A model that knows what waits, by caller and lane, and which batches there are."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[tuple[str, str], list[Job]] = {}
        self.begun: dict[Batch[Job], list[Job]] = {}
        """What each batch has begun that is not over."""
        self.running: list[Batch[Job]] = []
        self.paused: list[Batch[Job]] = []
        self.resuming: list[Batch[Job]] = []
        self.stuck: list[Batch[Job]] = []
        """Abandoned, or released: without a slot, until they end."""
        self.apart: list[Batch[Job]] = []
        """Detached."""
        self.ending: set[Batch[Job]] = set()
        """Running ones that have been told to begin no more."""
        self.held: set[str] = set()
        self.over: set[Job] = set()
        self.count = 0

    @initialize(concurrency=st.integers(1, 3))
    def start(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.admission: Admission[Job] = Admission(concurrency, lambda job: job[0])

    def new(self, caller: str, lane: str) -> Job:
        self.count += 1
        return (caller, lane, self.count)

    def obey(self, commands: Commands[Job]) -> None:
        for command in commands:
            if isinstance(command, Resume):
                assert self.resuming.pop(0) is command.batch, "who waits longest goes on first"
            else:
                self.begun[command.batch] = []
            self.running.append(command.batch)

    def put_back(self, jobs: list[Job]) -> list[tuple[str, Job]]:
        for job in reversed(jobs):
            self.waiting.setdefault(job[:2], []).insert(0, job)
        return [(job[1], job) for job in jobs]

    def finish(self, batch: Batch[Job], jobs: list[Job], data: st.DataObject | None) -> list[tuple[str, Job]]:
        """These jobs of a batch are over, but for some that are to begin again."""
        again = [job for job in jobs if data is not None and data.draw(st.booleans())]
        self.begun[batch] = [job for job in self.begun[batch] if job not in jobs]
        self.over.update(set(jobs) - set(again))
        return self.put_back(again)

    def draw(self, data: st.DataObject, batches: list[Batch[Job]]) -> Batch[Job]:
        return batches[data.draw(st.integers(0, len(batches) - 1))]

    @property
    def batches(self) -> list[Batch[Job]]:
        return [*self.running, *self.paused, *self.resuming, *self.stuck, *self.apart]

    # -- events ------------------------------------------------------------------------------------------------

    @rule(
        places=st.lists(st.tuples(st.sampled_from(CALLERS), st.sampled_from(LANES)), max_size=6),
        times=st.sampled_from((1, 1, 20)),
    )
    def arrive(self, places: list[tuple[str, str]], times: int) -> None:
        jobs = [self.new(*place) for place in places * times]
        for job in jobs:
            self.waiting.setdefault(job[:2], []).append(job)
        self.obey(self.admission.arrive([(job[1], job) for job in jobs]))

    @precondition(lambda self: self.running)
    @rule(data=st.data(), times=st.sampled_from((1, 1, 1, 3, 40)))
    def next(self, data: st.DataObject, times: int) -> None:
        batch = self.draw(data, self.running)
        for _ in range(times):
            self.begin(batch)

    def begin(self, batch: Batch[Job]) -> Job | None:
        job = self.admission.next(batch)
        if job is None:
            self.ending.add(batch)
        else:
            assert self.waiting[job[:2]].pop(0) == job, "in the order of its caller"
            assert job[1] not in self.held
            assert not any(job[1] in other.lanes for other in self.batches if other is not batch)
            self.begun[batch].append(job)
        return job

    @precondition(lambda self: self.running or self.resuming)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        batch = self.draw(data, self.running + self.resuming)
        (self.running if batch in self.running else self.resuming).remove(batch)
        self.paused.append(batch)
        self.obey(self.admission.pause(batch))

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        batch = self.draw(data, self.paused)
        self.paused.remove(batch)
        self.resuming.append(batch)
        self.obey(self.admission.resume(batch))

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def let_go(self, data: st.DataObject) -> None:
        self.obey(self.admission.let_go(self.draw(data, self.batches)))

    @rule(lane=st.sampled_from(LANES))
    def hold(self, lane: str) -> None:
        self.held.add(lane)
        self.admission.hold(lane)

    @rule(lane=st.sampled_from(LANES), adopts=st.sampled_from((None, *CALLERS)))
    def let_loose(self, lane: str, adopts: str | None) -> None:
        self.held.discard(lane)
        first = None if adopts is None else self.new(adopts, lane)
        if first is not None:
            self.put_back([first])
        self.obey(self.admission.let_loose(lane, first))

    @precondition(lambda self: any(self.waiting.values()))
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        places = sorted(place for place, jobs in self.waiting.items() if jobs)
        gone: list[Job] = []
        for place in data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=3, unique=True)):
            jobs = self.waiting[place]
            first = data.draw(st.integers(0, len(jobs) - 1))
            gone += jobs[first:]
            del jobs[first:]
        begun = [job for jobs in self.begun.values() for job in jobs]
        assert sorted(self.admission.withdraw([*begun, *gone])) == sorted(gone), "what was begun goes on"
        self.over.update(gone)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        batch = self.draw(data, self.running)
        own = [job for job in self.begun[batch] if job[1] == batch.lane]
        if batch.lane not in batch.lanes or len(own) != 1:
            return
        alone = self.admission.detach(batch, batch.lane)
        self.begun[batch].remove(own[0])
        self.begun[alone] = own
        self.apart.append(alone)

    @precondition(lambda self: len(self.apart) > 1)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        one, other = self.draw(data, self.apart), self.draw(data, self.apart)
        if one is other:
            return
        joined = self.admission.join([one, other])
        self.begun[joined] = self.begun.pop(one) + self.begun.pop(other)
        self.apart = [batch for batch in self.apart if batch is not one and batch is not other]
        self.apart.append(joined)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        batch = self.draw(data, self.running)
        if not self.begun[batch]:
            return
        self.running.remove(batch)
        self.stuck.append(batch)
        self.obey(self.admission.abandon(batch))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        batch = self.draw(data, self.running)
        self.running.remove(batch)
        self.stuck.append(batch)
        self.obey(self.admission.release(batch))

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def let_go_and_shed(self, data: st.DataObject) -> None:
        """What was begun before is written, while the last job goes on."""
        batch = self.draw(data, self.batches)
        self.obey(self.admission.let_go(batch))
        again = self.finish(batch, [job for job in self.begun[batch] if job[1] != batch.lane], data)
        self.obey(self.admission.shed(batch, again))
        assert batch.lanes <= {batch.lane}

    @precondition(lambda self: self.batches)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.end_of(self.draw(data, self.batches), data)

    def end_of(self, batch: Batch[Job], data: st.DataObject | None) -> None:
        for place in (self.running, self.paused, self.resuming, self.stuck, self.apart):
            if batch in place:
                place.remove(batch)
        again = self.finish(batch, list(self.begun[batch]), data)
        del self.begun[batch]
        self.obey(self.admission.end(batch, again))

    # -- what holds --------------------------------------------------------------------------------------------

    @invariant()
    def what_may_begin_is_ready(self) -> None:
        one, taken = self.admission, {lane for batch in self.batches for lane in batch.lanes}
        assert set(one._taken) == taken
        ready = {(owner, lane) for owner, lanes in one._ready._queues.items() for lane in lanes}
        assert one._listed <= ready, "what is listed is there"
        for lane in one._lanes._queues:
            if lane not in taken | self.held:
                owners = one._lanes.owners(lane)
                assert {(owner, lane) for owner in owners} <= ready, f"{lane} is not ready for all of {owners}"

    @invariant()
    def nothing_waits_while_a_slot_is_free(self) -> None:
        one = self.admission
        assert one.free == self.concurrency - len(self.running)
        if not one.free or any(batch.open or batch in self.ending for batch in self.running):
            return
        assert not self.resuming
        taken = {lane for batch in self.batches for lane in batch.lanes}
        for (caller, lane), jobs in self.waiting.items():
            assert not jobs or lane in taken | self.held or caller in one._full, f"{caller} waits in {lane} for nothing"

    def teardown(self) -> None:
        """All goes on and ends: then all was begun, once."""
        if not hasattr(self, "admission"):
            return
        for lane in LANES:
            self.let_loose(lane, None)
        while self.batches:
            for batch in list(self.running):
                while self.begin(batch) is not None:
                    self.what_may_begin_is_ready()
            for batch in self.batches:
                self.end_of(batch, None)
            self.nothing_waits_while_a_slot_is_free()
        assert not any(self.waiting.values())
        assert len(self.over) == self.count
        one = self.admission
        assert not one._lanes and not one._taken and not one._holding and not one._full and not one._lanes._shared
        assert one.free == self.concurrency


TestReady = Machine.TestCase
TestReady.settings = settings(max_examples=100, stateful_step_count=50, deadline=None)
