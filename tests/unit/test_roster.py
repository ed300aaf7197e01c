"""Properties of the pure part of the process pool."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coflows.pools.roster import Command, Fail, Give, Kill, Phase, Roster, Start, Why

LIMIT, PAUSED_LIMIT = 2, 3


class RosterMachine(RuleBasedStateMachine):
    """Obeys every command as the pool does, and remembers how each task ended."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.roster: Roster[int] = Roster(LIMIT, PAUSED_LIMIT)
        self.tasks = 0
        self.begun: list[int] = []
        self.given: dict[int, int] = {}
        """The task of each worker, as a worker would know it."""
        self.starting: set[int] = set()
        self.dying: set[int] = set()
        self.alive: set[int] = set()
        self.over: dict[int, str] = {}
        self.deadlines: dict[int, float | None] = {}

    def obey(self, commands: list[Command[int]]) -> None:
        for command in commands:
            match command:
                case Start(worker):
                    assert worker not in self.alive, "started twice"
                    self.alive.add(worker)
                    self.starting.add(worker)
                case Give(worker, task):
                    assert worker in self.alive - self.starting - self.dying
                    assert worker not in self.given, "two tasks at once"
                    assert task not in self.over
                    self.given[worker] = task
                    self.begun.append(task)
                    timeout = self.deadlines[task]
                    self.deadlines[task] = None if timeout is None else self.now + timeout
                case Kill(worker):
                    assert worker in self.alive - self.dying, "killed twice"
                    self.dying.add(worker)
                    self.starting.discard(worker)
                    self.given.pop(worker, None)
                case Fail(task, why):
                    assert task not in self.over, "ended twice"
                    self.over[task] = why.name

    @rule(timeout=st.none() | st.floats(0.1, 5))
    def submit(self, timeout: float | None) -> None:
        self.tasks += 1
        self.deadlines[self.tasks] = timeout
        self.obey(self.roster.submit(self.tasks, timeout, self.now))

    @precondition(lambda self: self.tasks)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        task = data.draw(st.integers(1, self.tasks))
        ran = task in self.given.values()
        commands = self.roster.cancel(task, self.now)
        if task not in self.over:
            self.over[task] = "CANCELLED"
            assert any(isinstance(one, Kill) for one in commands) == ran
        else:
            assert commands == []
        self.obey(commands)

    @precondition(lambda self: self.starting)
    @rule(data=st.data())
    def ready(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.starting)))
        self.starting.discard(worker)
        self.obey(self.roster.ready(worker, self.now))

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def done(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.given)))
        self.over[self.given.pop(worker)] = "DONE"
        self.obey(self.roster.ended(worker, self.now))

    @precondition(lambda self: self.given)
    @rule(data=st.data(), pause=st.booleans())
    def wait(self, data: st.DataObject, pause: bool) -> None:
        worker = data.draw(st.sampled_from(sorted(self.given)))
        self.obey(self.roster.pause(worker, self.now) if pause else self.roster.resume(worker))

    @precondition(lambda self: self.alive)
    @rule(data=st.data())
    def die(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.alive)))
        task = self.given.pop(worker, None)
        self.alive.discard(worker)
        self.starting.discard(worker)
        self.dying.discard(worker)
        self.obey(self.roster.died(worker, self.now))
        assert task is None or self.over[task] == "DIED"

    @rule(seconds=st.floats(0, 3))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        running = {task for task in self.given.values() if self.deadlines[task] is not None}
        late = {task for task in running if (self.deadlines[task] or 0.0) <= self.now}
        due = self.roster.next_deadline
        assert due == min((self.deadlines[task] for task in running), default=None)
        self.obey(self.roster.expire(self.now))
        assert {task for task in late if self.over.get(task) == "EXPIRED"} == late

    @invariant()
    def never_too_many(self) -> None:
        phases = list(self.roster.phases.values())
        assert phases.count(Phase.STARTING) + phases.count(Phase.IDLE) <= LIMIT
        assert sum(phase is not Phase.ENDING for phase in phases) <= LIMIT + PAUSED_LIMIT

    @invariant()
    def in_order(self) -> None:
        assert self.begun == sorted(self.begun) and len(set(self.begun)) == len(self.begun)

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        waiting = set(range(1, self.tasks + 1)) - set(self.over) - set(self.begun)
        phases = list(self.roster.phases.values())
        present = sum(phase in (Phase.STARTING, Phase.IDLE, Phase.WORKING) for phase in phases)
        full = present >= LIMIT or present + phases.count(Phase.PAUSED) >= LIMIT + PAUSED_LIMIT
        assert not waiting or full or phases.count(Phase.STARTING) >= len(waiting)
        assert not waiting or Phase.IDLE not in phases or phases.count(Phase.WORKING) >= LIMIT

    def teardown(self) -> None:
        """Everything can be ended, and then every task is over."""
        self.obey(self.roster.close())
        for worker in sorted(self.alive):
            self.alive.discard(worker)
            self.obey(self.roster.died(worker, self.now))
        assert set(self.over) == set(range(1, self.tasks + 1))
        assert not self.alive
        assert self.roster.submit(self.tasks + 1, None, self.now) == [Fail(self.tasks + 1, Why.CLOSED)]


RosterMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
TestRoster = RosterMachine.TestCase


@given(st.integers(1, 4), st.integers(1, 30))
def test_a_chain_of_tasks_that_wait_for_each_other_ends(limit: int, length: int) -> None:
    roster: Roster[int] = Roster(limit, 64)
    todo: list[Command[int]] = roster.submit(1, None, 0.0)
    finished: list[int] = []
    while todo:
        match todo.pop(0):
            case Start(worker):
                todo += roster.ready(worker, 0.0)
            case Give(worker, task) if task < length:
                todo += roster.pause(worker, 0.0)
                todo += roster.submit(task + 1, None, 0.0)
            case Give(worker, task):
                finished.append(task)
                todo += roster.ended(worker, 0.0)
                for above in range(task - 1, 0, -1):
                    number = roster.worker_of(above)
                    assert number is not None
                    todo += [*roster.resume(number), *roster.ended(number, 0.0)]
                    finished.append(above)
            case Kill(worker):
                todo += roster.died(worker, 0.0)
    assert sorted(finished) == list(range(1, length + 1))
    assert len(roster.phases) <= limit
