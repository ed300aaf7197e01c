"""One simulated run: messages through a partition whose workers die, freeze and thaw, as its seed says.

The decisions are the engine's own (Sequencer, Admission, and the conditions of a commit); broker, store and workers are
lists. Each step does one thing that a thread could do: deliver, begin, commit, publish, acknowledge, or a fault.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from coflows.dispatch.admission import Admission
from coflows.dispatch.batch import Batch, Commands, Start
from coflows.dispatch.sequencing import Sequencer
from tests.chaos.oracle import Verdict, judge

FLOWS, STREAMS, MESSAGES, STEPS = 3, 2, 5, 6000


@dataclass(frozen=True, slots=True)
class Message:
    """The ``number``-th message of one sender to a flow."""

    flow: str
    stream: str
    number: int

    @property
    def id(self) -> int:
        """What the flow remembers of it: of one sender's messages, they grow in the order of sending."""
        return 10 * self.number + int(self.stream[1:])


@dataclass(eq=False, slots=True)
class Job:
    """A delivery at one worker, taken under an epoch; ``twins`` are the tags of further ones of the same message."""

    message: Message
    tag: int
    epoch: int
    late: bool = False
    done: bool = False
    fresh: bool = True
    twins: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Store:
    """What was committed: states, records, how far each stream got; and the epoch of the lease."""

    seen: dict[str, list[int]] = field(default_factory=dict)
    done: set[Message] = field(default_factory=set)
    passed: dict[tuple[str, str], int] = field(default_factory=dict)
    epoch: int = 0


class Queue:
    """A single-active queue: unsettled messages go back to their places when their consumer goes."""

    def __init__(self) -> None:
        self.ready: list[tuple[int, Message]] = []
        self.unsettled: dict[int, tuple[int, Message]] = {}
        self._place = self._tag = 0

    def publish(self, message: Message) -> None:
        self._place += 1
        self.ready.append((self._place, message))

    def deliver(self) -> tuple[int, Message]:
        self._tag += 1
        self.unsettled[self._tag] = self.ready.pop(0)
        return self._tag, self.unsettled[self._tag][1]

    def give_back(self) -> None:
        self.ready = sorted([*self.ready, *self.unsettled.values()], key=lambda one: one[0])
        self.unsettled.clear()


@dataclass(eq=False, slots=True)
class Work:
    """A batch in hand: what of it was begun and not written yet, the flows that it runs on and the epochs of their
    last turns, and what is to be begun again. ``broken`` once a commit was refused."""

    batch: Batch[Job]
    begun: list[Job] = field(default_factory=list)
    flows: dict[str, list[int]] = field(default_factory=dict)
    epochs: dict[str, int] = field(default_factory=dict)
    again: list[Job] = field(default_factory=list)
    broken: bool = False


class Worker:
    """A worker on the partition, as intake, runner and writer go about it. One that died is dropped; one that froze
    still commits when it thaws."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._store = run.store
        self.epoch: int | None = None
        self.admission: Admission[Job] = Admission(2)
        self.sequencer: Sequencer[Job] = Sequencer()
        self.open: dict[Message, Job] = {}
        self.works: list[Work] = []
        self.memory: dict[str, list[int]] = {}
        """The flows that no batch has, as after their last turn."""
        self.acks: list[int] = []
        self.tracked: set[Job] = set()
        """What is not given back."""

    def take(self, tag: int, message: Message) -> None:
        """A delivery came."""
        waiting: list[Job] = []
        if self.epoch is not None and self.epoch != self._store.epoch and self._run.mutation != "no epoch":
            # Unnoticed, the partition was another worker's meanwhile.
            waiting = self._forget()
        if self.epoch is None:
            self._store.epoch += 1
            self.epoch = self._store.epoch
        job = Job(message, tag, self.epoch)
        first = self.open.setdefault(message, job)
        if first is job:
            self.tracked.add(job)
        else:
            first.twins.append(tag)
        ready: list[Job] = []
        for one in waiting:
            one.epoch = self.epoch
            ready += self._in_order(one, twin=False)
        ready += self._in_order(job, twin=first is not job)
        self._obey(self.admission.arrive((one.message.flow, one) for one in ready))

    def _in_order(self, job: Job, *, twin: bool) -> list[Job]:
        if self._run.mutation == "no numbers":
            job.done = job.message in self._store.done
            return [] if twin else [job]
        key, number = (job.message.flow, job.message.stream), job.message.number
        self.sequencer.begin(key, self._store.passed.get(key, 0))
        if not self.sequencer.is_late(key, number):
            return self.sequencer.offer(key, number, None if twin else job, self._run.now)
        job.late, job.done = True, job.message in self._store.done
        return [] if twin else [job]

    def _obey(self, commands: Commands[Job]) -> None:
        self.works += [Work(command.batch) for command in commands if isinstance(command, Start)]

    def turn(self, dice: random.Random) -> None:
        """Begin the next job of a batch, on the flow in memory or one built from its state."""
        work = dice.choice(self.works)
        job = self.admission.next(work.batch)
        if job is None:
            return
        if job not in self.tracked and self._run.mutation != "goes on after a refusal":
            self._ended(job)
            return
        if self._run.mutation == "ack before commit":
            self._run.queue.unsettled.pop(job.tag, None)
        if not job.fresh:
            job.done, job.fresh = job.message in self._store.done, True
        work.begun.append(job)
        if self._run.mutation != "no dedupe" and (job.done or job.late):
            return
        flow = job.message.flow
        if flow not in work.flows:
            built = list(self._store.seen.get(flow, []))
            work.flows[flow] = self.memory.pop(flow, built)
        work.flows[flow].append(job.message.id)
        work.epochs[flow] = job.epoch

    def let_go(self, dice: random.Random) -> None:
        """A batch takes its time: what it has not begun starts in another."""
        self._obey(self.admission.let_go(dice.choice(self.works).batch))

    def write(self, dice: random.Random) -> None:
        """What a batch has finished, before it is over."""
        self._write(dice.choice(self.works))

    def commit(self, dice: random.Random) -> None:
        """The rest of a batch; then its flows are there for others."""
        work = dice.choice(self.works)
        self.works.remove(work)
        self._write(work)
        if not work.broken or self._run.mutation == "keeps what was refused":
            self.memory |= {flow: seen for flow, seen in work.flows.items() if work.epochs[flow] == self.epoch}
        self._obey(self.admission.end(work.batch, [(job.message.flow, job) for job in work.again]))

    def _write(self, work: Work) -> None:
        """The turns finished so far, if nobody else has the lease and none of them was done."""
        store, mutation = self._store, self._run.mutation
        begun, work.begun = work.begun, []
        if work.broken:
            for job in begun:
                job.fresh = False
            work.again += begun
            return
        ran = [job for job in begun if not (job.done or job.late) or mutation == "no dedupe"]
        answered = [job for job in begun if job not in ran]
        stale = mutation != "no epoch" and any(job.epoch != store.epoch for job in ran)
        known = mutation != "no dedupe" and any(job.message in store.done for job in ran)
        if self._run.refusing and ran:
            # The store is locked, or full: all of it comes again.
            self._run.refusing, work.broken = False, True
            for job in ran:
                self._ended(job)
            if self is self._run.worker:
                self.hand_on()
        elif stale:
            work.broken = True
            for job in ran:
                self._ended(job)
            if any(job.epoch == self.epoch or job.twins for job in ran) and self is self._run.worker:
                self.hand_on()
        elif known:
            work.broken = True
            for job in ran:
                job.fresh = False
            work.again += ran
        else:
            for flow in {job.message.flow for job in ran}:
                store.seen[flow] = list(work.flows[flow])
            for job in ran:
                store.done.add(job.message)
                key = (job.message.flow, job.message.stream)
                store.passed[key] = max(store.passed.get(key, 0), job.message.number)
            answered += ran
        for job in answered:
            self._ended(job)
            self.acks += [job.tag, *job.twins]

    def _ended(self, job: Job) -> None:
        self.tracked.discard(job)
        if self.open.get(job.message) is job:
            del self.open[job.message]

    def acknowledge(self) -> None:
        self._run.queue.unsettled.pop(self.acks.pop(0), None)

    def hand_on(self) -> None:
        """Stop taking, give back what is not done, and line up again; what runs may still commit."""
        jobs = set(self.tracked)
        self.tracked.clear()
        if self._run.mutation != "goes on after a refusal":
            self.admission.withdraw(jobs)
        for job in jobs:
            self._ended(job)
        self.sequencer.withdraw(jobs)
        self._forget()
        self.acks.clear()
        self._run.queue.give_back()

    def _forget(self) -> list[Job]:
        self.epoch = None
        self.memory.clear()
        return self.sequencer.forget({f"f{flow}" for flow in range(FLOWS)})


class Run:
    """The world of one seed."""

    def __init__(self, seed: int, mutation: str) -> None:
        self.dice = random.Random(seed)
        self.mutation = mutation
        self.store = Store()
        self.queue = Queue()
        streams = [(flow, stream) for flow in range(FLOWS) for stream in range(STREAMS)]
        self.unsent = [Message(f"f{flow}", f"s{stream}", n) for n in range(1, MESSAGES + 1) for flow, stream in streams]
        self.now = 0.0
        self.refusing = False
        """The store refuses the next commit."""
        self.worker = Worker(self)
        self.others: list[Worker] = []
        """Frozen, or without the partition; they may have something in hand."""
        self.faults = self.dice.randrange(1, 10)

    def step(self) -> bool:
        """One thing that may happen now; False when nothing is left to happen."""
        worker, dice = self.worker, self.dice
        able: list[str] = []
        able += ["send"] * bool(self.unsent)
        able += ["deliver"] * bool(self.queue.ready)
        able += ["turn", "turn", "commit", "write", "let_go"] * bool(worker.works)
        able += ["acknowledge"] * bool(worker.acks)
        able += ["thaw"] * any(other.works for other in self.others)
        if not able:
            return False
        if self.faults and dice.random() < 0.03:
            self.faults -= 1
            self.fault()
            return True
        getattr(self, dice.choice(able))()
        return True

    def send(self) -> None:
        # Neighbours may change places on the way, and a message may be sent again.
        index = min(self.dice.choice([0, 0, 0, 1, 3]), len(self.unsent) - 1)
        message = self.unsent.pop(index)
        for _ in range(self.dice.choice([1, 1, 1, 2])):
            self.queue.publish(message)

    def deliver(self) -> None:
        self.worker.take(*self.queue.deliver())

    def turn(self) -> None:
        self.worker.turn(self.dice)

    def let_go(self) -> None:
        self.worker.let_go(self.dice)

    def write(self) -> None:
        self.worker.write(self.dice)

    def commit(self) -> None:
        self.worker.commit(self.dice)

    def acknowledge(self) -> None:
        self.worker.acknowledge()

    def thaw(self) -> None:
        other = self.dice.choice([other for other in self.others if other.works])
        getattr(other, self.dice.choice(["turn", "commit"]))(self.dice)

    def fault(self) -> None:
        """Whoever has the partition dies, freezes, hands it on to another or gets it again itself, or loses its
        connection unnoticed; or the store refuses a commit."""
        what = self.dice.choice(["die", "freeze", "hand on", "start over", "reconnect", "lend", "refuse"])
        if what == "refuse":
            self.refusing = True
            return
        if what in ("hand on", "start over"):
            self.worker.hand_on()
        else:
            self.worker.acks.clear()
            self.queue.give_back()
        if what in ("freeze", "hand on"):
            self.others.append(self.worker)
        if what in ("die", "freeze", "hand on"):
            self.worker = Worker(self)
        if what == "lend" and self.queue.ready:
            # To a worker that works a message off, and then is gone.
            between = Worker(self)
            between.take(*self.queue.deliver())
            while between.works:
                between.turn(self.dice)
                between.commit(self.dice)
            self.queue.give_back()


def simulate(seed: int, mutation: str = "") -> Verdict:
    """Run a seed to its end and judge what the store has; ``mutation`` breaks the engine on purpose."""
    run = Run(seed, mutation)
    sent: dict[tuple[str, str], list[int]] = {}
    for message in run.unsent:
        sent.setdefault((message.flow, message.stream), []).append(message.id)
    for _ in range(STEPS):
        if not run.step():
            break
    seen = {
        (flow, stream): [one for one in run.store.seen.get(flow, []) if f"s{one % 10}" == stream]
        for flow, stream in sent
    }
    return judge(sent, sent, seen)
