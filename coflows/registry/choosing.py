"""Decides, without I/O, whose flow a name means, among those that registries list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coflows.errors import (
    FlowAmbiguousError,
    FlowNotListedError,
    FlowOfflineError,
    OtherBrokerError,
    ProofInvalidError,
    UnknownUserError,
)
from coflows.model.flow_names import REGISTRY, FlowName

MAX_SHOWN = 10
_PORTS = {"amqp": ":5672", "amqps": ":5671"}


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint that a user offers, as he signed it; ``online`` is the word of a registry."""

    user_id: str
    endpoint: str
    organization: str = ""
    node: str = ""
    broker: str | None = None
    online: bool = True

    def __str__(self) -> str:
        organization = self.organization or "no organization"
        away = "" if self.online else ", offline"
        return f"{self.endpoint} of {organization} (user {self.user_id}, {self.node}{away})"


def choose(
    name: FlowName, candidates: Iterable[Candidate], doubts: Sequence[str] = (), silent: Sequence[str] = ()
) -> Candidate:
    """The one that the name means. ``doubts`` say what was listed and not proven, ``silent`` who did not answer.

    A user who is offline counts like the others: a name must not lead to somebody else while its owner is away.
    Raises FlowNotListedError, ProofInvalidError, FlowAmbiguousError or FlowOfflineError.
    """
    there = list(candidates)
    users: dict[str, Candidate] = {}
    for one in there:
        if one.endpoint == name.endpoint and name.organization in (None, one.organization):
            known = users.get(one.user_id)
            if known is None or one.online > known.online:
                users[one.user_id] = one
    if not users:
        raise _none(name, there, doubts, silent)
    if len(users) > 1:
        raise _several(name, list(users.values()))
    (chosen,) = users.values()
    if not chosen.online:
        raise FlowOfflineError(
            f"{chosen} has not been heard of lately.",
            hint=f"Try again later; or ask him all the same, with user_id={chosen.user_id!r}.",
        )
    return chosen


def unreachable(chosen: Candidate, broker_url: str) -> UnknownUserError:
    """What to raise when the chosen one has no door on the broker."""
    if chosen.broker is None or _place(chosen.broker) == _place(broker_url):
        return UnknownUserError(
            f"{chosen} has no door on this broker ({broker_url}).",
            hint="A get_instance worker of his makes one (coflows worker all); or ask him which broker he is on.",
        )
    if chosen.broker.startswith("embedded:"):
        hint = "An embedded broker is reached only on its machine and in its folder; ask him to join one like RabbitMQ."
    else:
        hint = f"Connect with broker_url={chosen.broker!r}, adding the user and password that you have there."
    return OtherBrokerError(
        f"{chosen} says that he is on the broker {chosen.broker}, and has no door on this one ({broker_url}).",
        hint=hint,
    )


def _place(broker_url: str) -> tuple[str, str, str]:
    """What of a broker's URL is the same for all its users."""
    scheme, _, rest = broker_url.partition("://")
    place, _, path = rest.partition("/")
    host = place.rpartition("@")[2].lower()
    port = _PORTS.get(scheme, "")
    return scheme, host.removesuffix(port) if port else host, path.rstrip("/")


def _none(
    name: FlowName, there: Sequence[Candidate], doubts: Sequence[str], silent: Sequence[str]
) -> FlowNotListedError | ProofInvalidError:
    if doubts:
        return ProofInvalidError(
            f"What is listed as {name} is not proven: {'; '.join(doubts[:MAX_SHOWN])}",
            hint="Do not trust the registry that lists it.",
        )
    away = f" Not answered by: {'; '.join(silent)}" if silent else ""
    near = "; ".join(sorted(map(str, there))[:MAX_SHOWN])
    hint = f"Like it there is: {near}." if near else "`coflows find` lists what there is; names are case-sensitive."
    return FlowNotListedError(f"No registry lists a flow {name}.{away}", hint=hint)


def _several(name: FlowName, found: Sequence[Candidate]) -> FlowAmbiguousError:
    shown = sorted(map(str, found))
    more = f"; and {len(shown) - MAX_SHOWN} more" if len(shown) > MAX_SHOWN else ""
    organizations = {one.organization for one in found}
    names = [str(FlowName(name.endpoint, one)) for one in sorted(organizations) if one]
    way = f"{' or '.join(names[:3])}, or " if len(organizations) > 1 and names else ""
    return FlowAmbiguousError(
        f"{name} is offered by {len(shown)} users: {'; '.join(shown[:MAX_SHOWN])}{more}.",
        hint=f"Name one: {way}user_id=... instead of {REGISTRY!r}; or trust him whom you mean (COFLOWS_TRUSTED=ID).",
    )
