"""Lets messages in as far as their senders' quotas allow, and answers what they do not allow."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial

from coflows.dispatch.answers import refusal
from coflows.dispatch.job import Job
from coflows.dispatch.records import Outgoing
from coflows.endpoint_quotas import EndpointQuotas
from coflows.endpoints import read
from coflows.errors import CoflowsError, QuotaExceededError
from coflows.model.failure import Failure
from coflows.model.layout import metadata_key
from coflows.model.messages import ReplyAddress, ReplyMode
from coflows.model.wire import Recall
from coflows.quotas.accounts import Account, Accounts, Excess
from coflows.quotas.quota import Quota
from coflows.session import Session
from coflows.store.base import Store

logger = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Refusals whose messages, should they come again in their old place, are refused the same way; and instances whose
endpoints are remembered."""
NOBODY = {"mode": "no_reply"}
TEXTS = {
    "messages": "{limit} messages of yours are in hand at this worker, as many as it takes of one user",
    "in_hand": "Your messages in hand at this worker take {limit:,.0f} bytes of memory, as much as it has for one user",
    "bytes_per_second": "Your messages have more than {limit:,.0f} bytes per second",
}
Answer = Sequence[Outgoing]
Refused = tuple[Job, Answer]


class Turnstile:
    """Of one worker. Thread-safe; ``admit`` is for one thread at a time."""

    def __init__(self, session: Session, store: Store, quota: Quota) -> None:
        self._session = session
        self._store = store
        self._own = session.user_id
        self._quota = quota
        self._quotas = EndpointQuotas(store, quota)
        self._accounts = Accounts()
        self._refused: OrderedDict[tuple[str, str, str], Failure] = OrderedDict()
        self._endpoints: OrderedDict[str, tuple[int, str]] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, jobs: Iterable[Job]) -> tuple[list[Job], list[Refused]]:
        """Those that may be worked off, in their order; and those that may not, with what they are answered."""
        admitted: list[Job] = []
        refused: list[Refused] = []
        now = time.monotonic()
        known: dict[tuple[str, str], tuple[Account, Quota]] = {}
        for job in jobs:
            answer = self._ask(job, now, known)
            if answer is None:
                admitted.append(job)
            else:
                refused.append((job, answer))
        if refused:
            logger.info("Refused %d message(s) over their senders' quotas.", len(refused))
        return admitted, refused

    def keep(self, jobs: Iterable[Job]) -> None:
        """What the jobs' turns have sent could not leave: they stay in hand."""
        for job in jobs:
            if job.quota is not None and job.account is None:
                self._let_in(job)

    def leave(self, jobs: Iterable[Job]) -> None:
        """The jobs are over, or given back."""
        left, weights = [], []
        for job in jobs:
            account, job.account = job.account, None
            if account is not None:
                left.append(account)
                weights.append(job.incoming.weight)
        if left:
            self._accounts.leave(left, weights)

    def keep_in_hand(self, job: Job) -> Callable[[], None]:
        """The job is over, but not what it takes: call what this gives when that is over too."""
        account, job.account = job.account, None
        return partial(self._accounts.leave, () if account is None else (account,), (job.incoming.weight,))

    def adopt(self, job: Job) -> None:
        """A message that was in hand at another worker."""
        if job.incoming.sender == self._own or job.account is not None:
            return
        try:
            job.metadata = self._store.get(metadata_key(job.payload.flow_id))
        except CoflowsError as error:
            logger.warning("It is not known at which endpoint a message counts: %s", error)
        self._let_in(job)

    def charge(self, job: Job, size: int) -> None:
        """Bytes that are sent to the job's sender."""
        if (account := job.account) is not None:
            with self._accounts.lock:
                account.charge(size)

    def refusal(self, recall: Recall, sender: str) -> Outgoing | None:
        """The answer to who asks for the reply to a message that was not let in, as long as that is remembered."""
        failure = self._refused.get((sender, recall.flow_id, recall.message_id))
        if failure is None:
            return None
        reply_to = ReplyAddress(ReplyMode.STORAGE, sender, recall.message_id, recall.session)
        return refusal(self._session, reply_to, failure)

    def may_ask(self, sender: str) -> bool:
        """Whether ``sender`` may have a recorded reply again now."""
        if sender == self._own:
            return True
        now = time.monotonic()
        with self._accounts.lock:
            return not self._accounts.get(sender, self._quota, now).owes(now)

    def asked(self, sender: str, size: int) -> None:
        """A recorded reply was sent to him."""
        if sender != self._own:
            with self._accounts.lock:
                self._accounts.get(sender, self._quota, time.monotonic()).charge(size)

    def caller_of(self, job: Job) -> str:
        """Whose turn it takes: its sender's, if he is not the owner himself."""
        return "" if job.incoming.sender == self._own else job.incoming.sender

    def has_refused(self, job: Job) -> bool:
        """Whether this message was not let in, as long as that is remembered."""
        return job.key in self._refused

    def tick(self, now: float) -> None:
        """To be called about once a second."""
        self._accounts.sweep(now)

    def _let_in(self, job: Job) -> None:
        job.caller = job.incoming.sender
        job.account, job.quota = self._account(job, time.monotonic())
        with self._accounts.lock:
            job.account.admit(0, 0.0, always=True, paid=True, weight=job.incoming.weight)

    def _ask(self, job: Job, now: float, known: dict[tuple[str, str], tuple[Account, Quota]]) -> Answer | None:
        """None once it is let in, and counts; else the answer. What nobody could be told of is always let in."""
        incoming, call = job.incoming, job.payload
        sender = incoming.sender
        if sender == self._own:
            return None
        job.caller = sender
        if self._refused and (failure := self._refused.get(job.key)) is not None:
            if job.late:
                return self._answer(job, failure)
            self._refused.pop(job.key, None)
        found = known.get((sender, call.flow_id))
        if found is None:
            found = known[sender, call.flow_id] = self._account(job, now)
        account, quota = found
        # A reply to a call of this user's own was asked for.
        told = job.done is None and call.answers is None and call.reply is not None and call.reply != NOBODY
        with self._accounts.lock:
            if job.done is not None and not job.again and account.owes(now):
                return ()  # It was answered, and he asks again.
            excess = account.admit(len(incoming.data), now, always=not told, paid=job.again, weight=incoming.weight)
        if excess is None:
            job.account, job.quota = account, quota
            return None
        failure = Failure.of(exceeded(excess, quota))
        self._remember(job.key, failure)
        return self._answer(job, failure)

    def _answer(self, job: Job, failure: Failure) -> Answer:
        try:
            reply_to = ReplyAddress.proven(job.payload.reply or {}, job.incoming.sender, job.incoming.message_id)
        except CoflowsError as malformed:
            logger.warning("Dropped a message with a malformed reply address: %s", malformed)
            return ()
        return (refusal(self._session, reply_to, failure),)

    def _account(self, job: Job, now: float) -> tuple[Account, Quota]:
        key: Hashable = job.incoming.sender
        endpoint = self._endpoint(job)
        own = None if endpoint is None else self._quotas.of(endpoint)
        quota = self._quota if own is None else own
        with self._accounts.lock:
            return self._accounts.get(key if own is None else (key, endpoint), quota, now), quota

    def _endpoint(self, job: Job) -> str | None:
        if job.metadata is None or job.stranger:
            return None
        flow_id = job.payload.flow_id
        known = self._endpoints.get(flow_id)
        if known is None or known[0] != job.metadata.version:
            known = job.metadata.version, read(job.metadata.value)["flow_endpoint"]
            self._endpoints[flow_id] = known
            if len(self._endpoints) > REMEMBERED:
                self._endpoints.popitem(last=False)
        return known[1]

    def _remember(self, key: tuple[str, str, str], failure: Failure) -> None:
        with self._lock:
            self._refused[key] = failure
            if len(self._refused) > REMEMBERED:
                self._refused.popitem(last=False)


def exceeded(excess: Excess, quota: Quota) -> QuotaExceededError:
    """The error that tells of it."""
    text = TEXTS[excess.limit].format(limit=getattr(quota, excess.limit))
    return QuotaExceededError(
        f"{text}; this one was not worked off.",
        hint=f"Send it again, as a new message, in {excess.retry_after:.1f} s (error.retry_after).",
        retry_after=excess.retry_after,
    )
