"""One simulated run: messages through a partition whose workers die, freeze and thaw, as its seed says.

The decisions are the engine's own (Sequencer, Admission, and the conditions of a commit); broker, store and workers are
lists. Each step does one thing that a thread could do: deliver, begin, commit, publish, acknowledge, or a fault.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from coflows.dispatch.admission import Admission, Batch, Commands, Start
from coflows.dispatch.sequencing import Sequencer
from tests.chaos.oracle import Verdict, judge

FLOWS, MESSAGES, STEPS = 3, 8, 4000


@dataclass(frozen=True, slots=True)
class Message:
    """The ``number``-th message to a flow."""

    flow: str
    number: int


@dataclass(eq=False, slots=True)
class Job:
    """A delivery at one worker, or (``twin`` of another) the same message again."""

    message: Message
    tag: int
    late: bool = False


@dataclass(slots=True)
class Store:
    """What was committed: states, records, how far each stream got; and the epoch of the lease."""

    seen: dict[str, list[int]] = field(default_factory=dict)
    done: set[Message] = field(default_factory=set)
    passed: dict[str, int] = field(default_factory=dict)
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


class Worker:
    """One life of a worker on the partition. ``frozen`` ones still commit when they thaw."""

    def __init__(self, run: Run) -> None:
        self._run = run
        run.store.epoch += 1
        self.epoch = run.store.epoch
        self.admission: Admission[Job] = Admission(2)
        self.sequencer: Sequencer[Job] = Sequencer()
        self.open: dict[Message, Job] = {}
        self.twins: dict[Job, list[int]] = {}
        self.batches: list[tuple[Batch[Job], list[Job], dict[str, list[int]]]] = []
        self.acks: list[int] = []

    def take(self, tag: int, message: Message) -> None:
        store, key = self._run.store, (message.flow, "s")
        job = Job(message, tag)
        first = self.open.setdefault(message, job)
        if first is not job:
            self.twins.setdefault(first, []).append(tag)
        if self._run.mutation == "no numbers":
            ready = [job] if first is job else []
        else:
            self.sequencer.begin(key, store.passed.get(message.flow, 0))
            if not self.sequencer.is_late(key, message.number):
                ready = self.sequencer.offer(key, message.number, job if first is job else None, 0.0)
            else:
                job.late = first is job
                ready = [job] if first is job else []
        self._obey(self.admission.arrive((one.message.flow, one) for one in ready))

    def _obey(self, commands: Commands[Job]) -> None:
        for command in commands:
            if isinstance(command, Start):
                self.batches.append((command.batch, [], {}))

    def turn(self, dice: random.Random) -> None:
        """Begin the next job of a batch, on a copy of the state."""
        batch, worked, states = dice.choice(self.batches)
        job = batch.next()
        if job is None:
            return
        flow = job.message.flow
        if self._run.mutation == "ack before commit":
            self._run.queue.unsettled.pop(job.tag, None)
        known = job.message in self._run.store.done and self._run.mutation != "no dedupe"
        if not known and not (job.late and self._run.mutation != "no dedupe"):
            states.setdefault(flow, list(self._run.store.seen.get(flow, []))).append(job.message.number)
        worked.append(job)

    def commit(self, dice: random.Random) -> None:
        """All of a batch's turns, if nobody else has the lease and none of them was done."""
        entry = dice.choice(self.batches)
        batch, worked, states = entry
        self.batches.remove(entry)
        store = self._run.store
        if self.epoch != store.epoch and self._run.mutation != "no epoch":
            self._obey(self.admission.end(batch))
            return
        for flow, state in states.items():
            store.seen[flow] = state
        for job in worked:
            store.done.add(job.message)
            passed = store.passed.get(job.message.flow, 0)
            store.passed[job.message.flow] = max(passed, job.message.number)
            self.open.pop(job.message, None)
            self.acks += [job.tag, *self.twins.pop(job, [])]
        self._obey(self.admission.end(batch))

    def acknowledge(self) -> None:
        self._run.queue.unsettled.pop(self.acks.pop(0), None)


class Run:
    """The world of one seed."""

    def __init__(self, seed: int, mutation: str) -> None:
        self.dice = random.Random(seed)
        self.mutation = mutation
        self.store = Store()
        self.queue = Queue()
        self.unsent = [Message(f"f{flow}", number) for number in range(1, MESSAGES + 1) for flow in range(FLOWS)]
        self.worker = Worker(self)
        self.frozen: list[Worker] = []
        self.faults = self.dice.randrange(1, 8)

    def step(self) -> bool:
        """One thing that may happen now; False when nothing is left to happen."""
        worker, dice = self.worker, self.dice
        able: list[str] = []
        able += ["send"] * bool(self.unsent)
        able += ["deliver"] * bool(self.queue.ready)
        able += ["turn", "commit"] * bool(worker.batches)
        able += ["acknowledge"] * bool(worker.acks)
        able += ["thaw"] * any(frozen.batches for frozen in self.frozen)
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

    def commit(self) -> None:
        self.worker.commit(self.dice)

    def acknowledge(self) -> None:
        self.worker.acknowledge()

    def thaw(self) -> None:
        self.dice.choice([frozen for frozen in self.frozen if frozen.batches]).commit(self.dice)

    def fault(self) -> None:
        """The worker dies or freezes; the next one takes over what was not acknowledged."""
        if self.dice.random() < 0.5:
            self.frozen.append(self.worker)
        self.queue.give_back()
        self.worker = Worker(self)


def simulate(seed: int, mutation: str = "") -> Verdict:
    """Run a seed to its end and judge what the store has; ``mutation`` breaks the engine on purpose."""
    run = Run(seed, mutation)
    sent: dict[str, list[int]] = {}
    for message in run.unsent:
        sent.setdefault(message.flow, []).append(message.number)
    for _ in range(STEPS):
        if not run.step():
            break
    return judge(sent, sent, run.store.seen)
