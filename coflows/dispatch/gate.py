"""Who may send to an instance, and what a message costs a grant, as a dispatch worker decides for each message."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from coflows.access.budget import Spent, is_limited
from coflows.access.grants import Grant, check_time, read_grant
from coflows.admitting import access_denied
from coflows.client import Client
from coflows.codec.wire import encode
from coflows.dispatch.job import Job
from coflows.dispatch.loader import Loader
from coflows.dispatch.records import TurnRecord
from coflows.endpoints import read
from coflows.errors import AccessDeniedError, ConflictError, InstanceNotFoundError
from coflows.granting import Account
from coflows.instances import Instance, no_such_instance
from coflows.model.layout import call_key, charged_key, done_key, granted_key
from coflows.model.names import LOCAL
from coflows.policies import PolicyInForce
from coflows.store.base import ABSENT, Entry

CACHE_SIZE = 10_000


class Gate:
    """Thread-safe. Rules and revocations are those of the last ``tick``; budgets are counted in the store."""

    def __init__(self, cl: Client, loader: Loader) -> None:
        self._cl = cl
        self._loader = loader
        self._policy = PolicyInForce(cl.store)
        self._met: OrderedDict[str, int] = OrderedDict()
        self._read: OrderedDict[str, Grant] = OrderedDict()
        self._lock = threading.Lock()
        self._paying = threading.Lock()

    def tick(self) -> None:
        """To be called about once a second."""
        self._policy.tick()

    def is_stranger(self, job: Job) -> bool:
        """Whether the sender has nothing to do with the instance, as far as can be told before its message's turn:
        then it waits for nothing, as it would where there is no such instance."""
        sender, flow_id = job.incoming.sender, job.payload.flow_id
        if job.metadata is None:
            return True
        if sender == self._cl.user_id:
            return False
        if job.payload.answers is not None:
            return self._cl.store.get(call_key(flow_id, job.payload.answers)) is None
        try:
            instance = self._loader.find(flow_id, job.metadata)
        except InstanceNotFoundError:
            return True
        if _is_mounted_for(sender, instance):
            return False
        self._meet(instance)
        return not self._shares(sender, instance)

    def check(self, instance: Instance, sender: str, root: str | None) -> Grant | None:
        """Raise unless ``sender`` may use the instance, for ``root``: InstanceNotFoundError when it is not his and he
        may not fetch it, AccessDeniedError, GrantExpiredError or GrantRevokedError when he might once. Gives the grant
        by which he holds it."""
        endpoint, flow_id = instance.path.endpoint, instance.path.flow_id
        self._meet(instance)
        mounted = _is_mounted_for(sender, instance)
        if not mounted and not self._loader.is_shared(instance):
            raise no_such_instance(flow_id)
        token = instance.grant if mounted else None
        if token is None:
            if self._admits(endpoint, sender, root):
                return None
            token = self._token(flow_id, sender)
        if token is None:
            raise access_denied(endpoint, self._cl.user_id) if mounted else no_such_instance(flow_id)
        grant = self._grant(token)
        check_time(grant, time.time())
        self._policy.now.check_not_revoked(grant)
        return grant

    def charge(self, job: Job, grant: Grant) -> None:
        """Count the message against the grant's budget, durably, and once however often it comes: it is marked until
        its turn's commit, which takes the mark away and leaves the record of the turn. This has a commit of its own,
        before the turn: turns of several workers that share a budget would otherwise be run again whenever two of them
        end at once. Raises GrantSpentError or GrantRevokedError."""
        if not is_limited(grant):
            return
        incoming, flow_id = job.incoming, job.payload.flow_id
        mark, done = charged_key(flow_id, incoming.message_id), done_key(flow_id, incoming.message_id)
        with self._paying:
            while True:
                account = Account(self._cl.store, [grant], [mark, done])
                if mark in account.found or done in account.found:
                    check_paid_by(
                        incoming.sender, incoming.message_id, account.found.get(mark), account.found.get(done)
                    )
                    break
                account.pay(grant, Spent(calls=1, bytes=len(incoming.data)))
                record = encode({"at": time.time(), "until": incoming.until, "by": incoming.sender})
                conditions = {**account.conditions, mark: ABSENT, done: ABSENT}
                try:
                    self._cl.store.commit({**account.writes, mark: record}, conditions=conditions)
                except ConflictError:
                    continue
                break
        job.charged = mark

    def _meet(self, instance: Instance) -> None:
        """Nobody is let in to an instance by rules that are older than it."""
        flow_id = instance.path.flow_id
        if self._met.get(flow_id) != instance.version:
            self._policy.refresh()
            with self._lock:
                self._met[flow_id] = instance.version
                if len(self._met) > CACHE_SIZE:
                    self._met.popitem(last=False)

    def _shares(self, sender: str, instance: Instance) -> bool:
        if not self._loader.is_shared(instance):
            return False
        return self._admits(instance.path.endpoint, sender) or (self._token(instance.path.flow_id, sender) is not None)

    def _admits(self, endpoint: str, sender: str, root: str | None = None) -> bool:
        """Nobody is refused by a rule that has been changed since."""
        if self._policy.now.admits(endpoint, sender, root):
            return True
        self._policy.tick()
        return self._policy.now.admits(endpoint, sender, root)

    def _token(self, flow_id: str, sender: str) -> str | None:
        entry = self._cl.store.get(granted_key(flow_id, sender))
        return None if entry is None else read(entry.value)["grant"]

    def _grant(self, token: str) -> Grant:
        """As it was checked when it was presented; read once."""
        known = self._read.get(token)
        if known is None:
            known = read_grant(token)
            with self._lock:
                self._read[token] = known
                if len(self._read) > CACHE_SIZE:
                    self._read.popitem(last=False)
        return known


def check_paid_by(sender: str, message_id: str, mark: Entry | None, done: Entry | None) -> None:
    """Nobody has his turn on what another one has paid for a message with the same id."""
    record = None if done is None else TurnRecord.decode(done.value)
    if record is not None:
        paid = record.is_of(message_id, sender)
    else:
        paid = mark is None or read(mark.value).get("by", sender) == sender
    if not paid:
        raise AccessDeniedError("Somebody else's message has this id.", hint="Send it under another one.")


def _is_mounted_for(sender: str, instance: Instance) -> bool:
    return instance.path.client == sender != LOCAL
