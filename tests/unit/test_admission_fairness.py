"""Admission among several callers: each has his turn, and none holds all slots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coflows.dispatch.admission import Admission
from coflows.dispatch.batch import Batch, Resume, Start
from coflows.dispatch.lanes import SHORT

Job = tuple[str, str, int]
"""Caller, lane and number."""
CONCURRENCY = 3


def admission(concurrency: int = CONCURRENCY) -> Admission[Job]:
    return Admission(concurrency, lambda job: job[0])


class Machine(RuleBasedStateMachine):
    """Checks whose jobs run at once, that each caller's are in order within a lane, and that none is left waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = admission()
        self.waiting: dict[tuple[str, str], list[Job]] = {}
        self.running: list[tuple[Batch[Job], str | None]] = []
        self.stuck: list[tuple[Batch[Job], str]] = []
        self.count = 0

    def obey(self, commands: list[Start[Job] | Resume[Job]]) -> None:
        for command in commands:
            self.running.append((command.batch, None))

    def held_by(self, caller: str) -> int:
        batches = [*self.running, *self.stuck]
        return sum(one == caller for _, one in batches)

    @rule(jobs=st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("xyz")), max_size=6))
    def arrive(self, jobs: list[tuple[str, str]]) -> None:
        arriving = []
        for caller, lane in jobs:
            self.count += 1
            job = (caller, lane, self.count)
            self.waiting.setdefault((caller, lane), []).append(job)
            arriving.append((lane, job))
        self.obey(self.admission.arrive(arriving))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def begin(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.running) - 1))
        batch, _ = self.running[place]
        job = self.admission.next(batch)
        if job is None:
            self.running[place] = (batch, None)
            return
        caller, lane, _ = job
        assert self.waiting[caller, lane].pop(0) == job, "in the order of its caller"
        self.running[place] = (batch, caller)
        assert self.held_by(caller) < CONCURRENCY, "nobody has all slots"

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        batch, _ = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.obey(self.admission.end(batch))

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def abandon(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.running) - 1))
        batch, caller = self.running[place]
        if caller is None or batch.lane not in batch.lanes:
            return
        del self.running[place]
        alone = self.admission.detach(batch, batch.lane)
        commands = self.admission.abandon(batch)
        self.stuck.append((batch, caller))
        self.obey(commands)
        self.obey(self.admission.end(alone))

    @precondition(lambda self: self.stuck)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        batch, _ = self.stuck.pop(data.draw(st.integers(0, len(self.stuck) - 1)))
        self.obey(self.admission.release(batch))
        self.obey(self.admission.end(batch))

    @invariant()
    def who_may_begin_does(self) -> None:
        assert len(self.running) + self.admission.free == CONCURRENCY
        taken = {lane for batch, _ in [*self.running, *self.stuck] for lane in batch.lanes}
        may = [
            caller
            for (caller, lane), jobs in self.waiting.items()
            if jobs and lane not in taken and self.held_by(caller) < CONCURRENCY - 1
        ]
        assert not (self.admission.free and may and not any(batch.open for batch, _ in self.running))


TestFairness = Machine.TestCase


@given(lanes=st.lists(st.integers(0, 3), min_size=40, max_size=60), begun=st.integers(0, 5))
def test_one_who_comes_after_a_flood_is_next_but_one(lanes: list[int], begun: int) -> None:
    one = admission()
    (start,) = one.arrive((f"lane {lane}", ("flood", f"lane {lane}", number)) for number, lane in enumerate(lanes))
    for _ in range(begun):
        assert one.next(start.batch) is not None
    one.arrive([("his own", ("other", "his own", 0))])
    assert "other" in [job[0] for _ in range(2) if (job := one.next(start.batch)) is not None]


def test_one_who_comes_after_a_flood_into_the_same_lane_is_next_but_one() -> None:
    one = admission()
    (start,) = one.arrive(("lane", ("flood", "lane", number)) for number in range(60))
    one.arrive([("lane", ("other", "lane", 0))])
    assert "other" in [job[0] for _ in range(2) if (job := one.next(start.batch)) is not None]


def test_a_short_lane_keeps_the_order_in_which_its_jobs_came() -> None:
    one = admission()
    jobs = [("lane", (caller, "lane", number)) for number, caller in enumerate("ABBA" * (SHORT // 4))]
    (start,) = one.arrive(jobs)
    assert [one.next(start.batch) for _ in jobs] == [job for _, job in jobs]


def test_what_is_begun_again_or_withdrawn_leaves_a_short_lane_in_its_order() -> None:
    one = admission()
    jobs = [("A", "lane", 0), ("A", "lane", 1), ("B", "lane", 2), ("A", "lane", 3)]
    (start,) = one.arrive(("lane", job) for job in jobs)
    assert one.next(start.batch) == jobs[0]
    (again,) = one.end(start.batch, [("lane", jobs[0])])
    assert one.withdraw([jobs[3]]) == [jobs[3]]
    assert [one.next(again.batch) for _ in range(3)] == jobs[:3]


def test_who_waits_in_a_short_lane_does_not_wait_for_who_has_all_he_may() -> None:
    one = admission(2)
    (first,) = one.arrive([("shared", ("A", "shared", 0)), ("shared", ("B", "shared", 0)), ("own", ("A", "own", 0))])
    one.hold("shared")
    assert one.next(first.batch) == ("A", "own", 0), "it is stuck there"
    (second,) = [*one.let_go(first.batch), *one.let_loose("shared")]
    assert one.next(second.batch) == ("B", "shared", 0)


def test_who_waits_in_a_lane_that_has_grown_long_does_not_wait_for_who_has_all_he_may() -> None:
    one = admission(2)
    (first,) = one.arrive([("x", ("C", "x", 0))])
    assert one.next(first.batch) is not None
    (second,) = one.arrive([("y", ("D", "y", 0))])
    assert one.next(second.batch) is not None
    one.arrive([("own", ("A", "own", 0))])
    one.arrive(("shared", (caller, "shared", number)) for number in range(SHORT) for caller in "AB")
    assert one.next(first.batch) == ("A", "own", 0), "it is stuck there"
    (third,) = one.end(second.batch)
    assert one.next(third.batch) == ("B", "shared", 0)


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=4))
def test_callers_alternate_within_one_batch(counts: list[int]) -> None:
    one = admission()
    jobs = [
        (f"of {caller}", (str(caller), "", number)) for caller, count in enumerate(counts) for number in range(count)
    ]
    (start,) = one.arrive(jobs)
    begun = [job for _ in range(64) if (job := one.next(start.batch)) is not None]
    assert len(begun) == min(64, sum(counts))
    for place, (_, _, number) in enumerate(begun):
        assert place < (number + 1) * len(counts) + len(counts), "nobody waits for more than one job of each other"


def test_the_owner_himself_may_have_all_slots() -> None:
    one = admission(2)
    (first,) = one.arrive([(lane, ("", lane, 0)) for lane in "ab"])
    assert one.next(first.batch) is not None
    (second,) = one.let_go(first.batch)
    assert one.next(second.batch) is not None and one.free == 0
