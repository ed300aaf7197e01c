"""The messages that are in hand, so that one which comes again meanwhile is not worked off beside itself."""

from __future__ import annotations

from dataclasses import replace

from coflows.dispatch.job import Job


class InHand:
    """Thread-safe without a lock: each step is one of a dict's or a list's own, and is looked at again after it. Who
    ends a job takes it out (``leave``) first, and its twins then."""

    def __init__(self) -> None:
        self._jobs: dict[tuple[str, str, str], Job] = {}

    def __len__(self) -> int:
        return len(self._jobs)

    def find(self, key: tuple[str, str, str]) -> Job | None:
        """The job of a message that is in hand."""
        return self._jobs.get(key)

    def put(self, job: Job) -> None:
        """This one it is from now on, whatever came before."""
        self._jobs[job.key] = job

    def join(self, job: Job) -> bool:
        """Whether it is the first of its message. Else it is that one's twin, or done with if that one is parked."""
        while (first := self._jobs.setdefault(job.key, job)) is not job:
            job.twin = True
            if first.parked is not None:
                job.settle()
                return False
            first.twins.append(job)
            if self._jobs.get(job.key) is first or not _take_back(job, first):
                return False
            job.twin = False
        return True

    def repeat(self, twin: Job) -> Job | None:
        """A message came again while it was worked off, and that is over: the job to look at as one that comes now.
        None when it has come once more by now."""
        # A job of its own: the twin may be about to be put in order, as what it is.
        again = replace(twin, twin=False, fresh=False, twins=[])
        return again if self.join(again) else None

    def leave(self, job: Job) -> None:
        """It is over, or goes back; nothing happens when another one is in its place."""
        if self._jobs.get(job.key) is job:
            del self._jobs[job.key]


def _take_back(twin: Job, first: Job) -> bool:
    """Whether who ended ``first`` did not see its twin."""
    try:
        first.twins.remove(twin)
    except ValueError:
        return False
    return True
