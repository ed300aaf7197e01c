"""Decides, without I/O, how the chain of a call goes on, and whether a call with this chain may be worked off."""

from __future__ import annotations

from coflows.errors import CallBudgetError, CallChainError, CallCycleError, CallDepthError, CallExpiredError
from coflows.model.chain import MAX_HOPS, CallChain, Hop


def extended(chain: CallChain | None, caller: str, here: Hop) -> CallChain:
    """The chain of what a turn sends: ``here`` is the turn, ``caller`` who sent its message, with ``chain``. Raises
    CallDepthError."""
    known = chain or CallChain(caller)
    longer = CallChain(known.root, (*known.hops, here), known.deadline, known.budget)
    if len(longer.hops) > MAX_HOPS:
        raise CallDepthError(
            f"The chain of calls is longer than {MAX_HOPS}: {_shortened(longer)}.",
            hint="Does a flow call others without end? Let the first one ask them one after the other.",
        )
    return longer


def limited(chain: CallChain, deadline: float | None, budget: int | None) -> CallChain:
    """The chain with what its sender asks for besides; it is never given more than it had."""
    until = min((one for one in (chain.deadline, deadline) if one is not None), default=None)
    calls = min((one for one in (chain.budget, budget) if one is not None), default=None)
    return CallChain(chain.root, chain.hops, until, calls)


def share(budget: int | None, chain: CallChain) -> tuple[int | None, int | None]:
    """What one more call gets of a turn's budget, and what the turn keeps: the call itself is one, and half of the rest
    goes with it, so that all calls together are never more than the budget. Raises CallBudgetError."""
    if budget is None:
        return None, None
    if budget < 1:
        raise CallBudgetError(
            f"The call's budget of further calls is used up: {_shortened(chain)}.",
            hint="Give the first message a larger budget, or none.",
        )
    given = (budget - 1) // 2
    return given, budget - 1 - given


def check_chain(chain: CallChain, *, sender: str, source: str | None, now: float) -> None:
    """What the receiver can tell: its last hop, and without one its root, is the proven ``sender``, it is that instance
    that says to have sent it (``source``), and the deadline is not over. Raises CallChainError or CallExpiredError."""
    vouched = chain.hops[-1].user_id if chain.hops else chain.root
    if vouched != sender or (chain.hops and source not in (None, chain.hops[-1].flow_id)):
        raise CallChainError(
            f"User {sender[:8]} cannot vouch for this chain of calls: {_shortened(chain)}.",
            hint="Its last link is who sends the message.",
        )
    if chain.deadline is not None and now > chain.deadline:
        raise CallExpiredError(
            f"The call came {now - chain.deadline:.1f} s after the deadline of its chain: {_shortened(chain)}.",
            hint="Give the first message a later deadline, or none.",
        )


def check_cycle(chain: CallChain, user_id: str, flow_id: str) -> None:
    """Raise CallCycleError when the chain went through this instance already."""
    for number, hop in enumerate(chain.hops):
        if hop.flow_id == flow_id and hop.user_id == user_id:
            links = (*chain.hops[number:], hop)
            raise CallCycleError(
                f"The calls go in a circle: {' -> '.join(map(str, links))}; begun by user {chain.root[:8]}.",
                hint="An instance cannot be asked again by what it has asked itself; let it reply instead.",
            )


def _shortened(chain: CallChain) -> str:
    hops = chain.hops
    if len(hops) <= 8:
        return str(chain)
    return f"{CallChain(chain.root, hops[:4])} -> ... -> {' -> '.join(map(str, hops[-3:]))}"
