"""How the chain of calls goes on in a turn: what the turn sends carries where it comes from."""

from __future__ import annotations

from typing import Any

from coflows.access.chain import check_cycle, extended, limited, share
from coflows.client import Client
from coflows.identity.sealing import SINGLE
from coflows.instances import Instance
from coflows.model.address import InstanceAddress
from coflows.model.chain import CallChain, Hop
from coflows.model.messages import FlowMessage


class Course:
    """Of one turn; reckons nothing before the turn sends something. With ``own`` its owner is the root of all that it
    sends. For the one thread that runs the flow."""

    __slots__ = ("_cl", "_given", "_instance", "_left", "_message", "_onward", "_own", "_plain")

    def __init__(
        self, cl: Client, instance: Instance, message: FlowMessage, given: CallChain | None, own: bool
    ) -> None:
        self._cl = cl
        self._instance = instance
        self._message = message
        self._given = given
        self._own = own
        self._left = None if given is None or own else given.budget
        self._onward: CallChain | None = None
        self._plain: list[Any] | None = None

    def call(self, to: InstanceAddress, message: FlowMessage) -> list[Any] | None:
        """The chain of a message that the turn sends, None when it has none. Raises CallCycleError, CallDepthError or
        CallBudgetError."""
        if self._cl.settings.envelope_version == SINGLE:
            return None  # A peer may be there that does not know of chains.
        if self._own:
            return self._cl.chain_of(message)
        onward = self._onward
        if onward is None:
            here = Hop(self._cl.user_id, self._instance.path.endpoint, self._instance.path.flow_id)
            onward = self._onward = extended(self._given, self._caller, here)
        check_cycle(onward, to.user_id, to.flow_id)
        if self._left is None and message.deadline is None and message.budget is None:
            if self._plain is None:
                self._plain = onward.to_list()
            return self._plain
        given, self._left = share(self._left, onward)
        with_share = CallChain(onward.root, onward.hops, onward.deadline, given)
        return limited(with_share, message.deadline, message.budget).to_list()

    def reply(self) -> list[Any] | None:
        """The chain of the turn that the reply to a call will be: that of this one, with half of what it has left."""
        if self._own:
            return None
        given = None if self._left is None else self._left // 2
        if self._left is not None and given is not None:
            self._left -= given
        return CallChain(self._root, self._hops, self._deadline, given).to_list()

    def timer(self) -> list[Any] | None:
        """The chain of a timer that the turn sets: it goes on where this one is, at a time of its own. Raises
        CallBudgetError."""
        if self._own:
            return None
        chain = CallChain(self._root, self._hops)
        given, self._left = share(self._left, chain)
        return CallChain(chain.root, chain.hops, None, given).to_list()

    @property
    def _caller(self) -> str:
        return self._message.sender or self._cl.user_id

    @property
    def _root(self) -> str:
        return self._caller if self._given is None else self._given.root

    @property
    def _hops(self) -> tuple[Hop, ...]:
        return () if self._given is None else self._given.hops

    @property
    def _deadline(self) -> float | None:
        return None if self._given is None else self._given.deadline
