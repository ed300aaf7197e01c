"""What a queue did not take is sent again after a pause, a longer one each further time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coflows.dispatch.job import Job
from coflows.dispatch.parking import Claim
from coflows.dispatch.refused import LONGER_PAUSE, PAUSE, Refused
from coflows.errors import BrokerError
from coflows.model.calls import Call
from coflows.session import Incoming

FLOW = "00000000-0000-4000-8000-000000000000"
FULL = BrokerError("The queue is full.")


class Told:
    """The runner, as far as it is told of what waits."""

    def __init__(self) -> None:
        self.settled: list[Job] = []
        self.adopted: list[Job] = []
        self.settlement = self

    def settle(self, jobs: Sequence[Job], error: BaseException) -> None:
        assert error is FULL
        self.settled += jobs

    def adopt(self, job: Job) -> None:
        assert not job.fresh
        self.adopted.append(job)


def job(**more: Any) -> Job:
    source: Any = None
    return Job(None, Incoming("a" * 52, "0" * 32, {}, b""), Call(FLOW), source, ("a", FLOW, "0"), **more)


def refusing() -> tuple[Any, Refused]:
    told: Any = Told()
    return told, Refused(told)


def test_it_is_sent_again_after_a_pause() -> None:
    told, refused = refusing()
    first, again = job(), job(again=True)
    refused.add([first], FULL, 10.0)
    refused.add([again], FULL, 10.0)
    refused.tick(10.0 + PAUSE - 0.1)
    assert told.settled == []
    refused.tick(10.0 + PAUSE)
    assert told.settled == [first]
    refused.tick(10.0 + LONGER_PAUSE)
    refused.tick(10.0 + 2 * LONGER_PAUSE)
    assert told.settled == [first, again]


def test_a_parked_message_stays_here() -> None:
    """Nobody else has it: it would be lost with its record."""
    told, refused = refusing()
    parked, other = job(parked=Claim("key", 1)), job()
    refused.add([parked, other], FULL, 0.0)
    refused.tick(LONGER_PAUSE)
    assert told.adopted == [parked] and told.settled == [other]


def test_what_is_given_back_waits_no_more() -> None:
    told, refused = refusing()
    one, other = job(), job()
    refused.add([one, other], FULL, 0.0)
    assert refused.withdraw({one, job()}) == [one]
    refused.tick(PAUSE)
    assert told.settled == [other]
