"""Admission: order within a lane, exclusion, concurrency, and no turn is forgotten."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coflows.dispatch.admission import Admission, Resume, Start

CONCURRENCY = 2


class Machine(RuleBasedStateMachine):
    """A model that only knows which jobs arrived in which lane, and checks each command against it."""

    def __init__(self) -> None:
        super().__init__()
        self.admission: Admission[int] = Admission(CONCURRENCY)
        self.lanes: dict[str, list[int]] = {}
        self.running: set[int] = set()
        self.paused: set[int] = set()
        self.resuming: list[int] = []
        self.count = 0

    def obey(self, commands: list[Start[int] | Resume[int]]) -> None:
        for command in commands:
            job = command.job
            if isinstance(command, Resume):
                assert self.resuming[0] == job, "who waits longest goes on first"
                self.resuming.pop(0)
            else:
                assert not self.resuming, "nothing starts while something could go on"
                assert any(lane and lane[0] == job for lane in self.lanes.values()), "only the first of a lane starts"
            assert job not in self.running and job not in self.paused
            self.running.add(job)

    @rule(lane=st.sampled_from("abc"))
    def arrive(self, lane: str) -> None:
        self.count += 1
        self.lanes.setdefault(lane, []).append(self.count)
        self.obey(self.admission.arrive(self.count, lane))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.running))))

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def end_while_paused(self, data: st.DataObject) -> None:
        self.finish(data.draw(st.sampled_from(sorted(self.paused))))

    def finish(self, job: int) -> None:
        self.running.discard(job)
        self.paused.discard(job)
        for lane in self.lanes.values():
            if lane and lane[0] == job:
                lane.pop(0)
        self.obey(self.admission.end(job))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.running)))
        self.running.remove(job)
        self.paused.add(job)
        self.obey(self.admission.pause(job))

    @precondition(lambda self: self.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(sorted(self.paused)))
        self.paused.remove(job)
        self.resuming.append(job)
        self.obey(self.admission.resume(job))

    @rule(lane=st.sampled_from("abc"))
    def withdraw(self, lane: str) -> None:
        jobs = self.lanes.get(lane, [])
        started = self.running | self.paused | set(self.resuming)
        expected = [job for job in jobs if job not in started]
        assert self.admission.withdraw(list(jobs)) == expected
        self.lanes[lane] = [job for job in jobs if job in started]

    @invariant()
    def no_slot_is_idle_while_work_waits(self) -> None:
        assert len(self.running) + self.admission.free == CONCURRENCY
        started = self.running | self.paused | set(self.resuming)
        waiting = [lane for lane in self.lanes.values() if lane and lane[0] not in started]
        assert not (self.admission.free and (waiting or self.resuming))


TestAdmission = Machine.TestCase
TestAdmission.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
