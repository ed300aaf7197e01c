"""Asks the registries that a user trusts: who serves a flow of some name, and what is found by a query."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from coflows.errors import (
    CoflowsError,
    ConfigurationError,
    FlowAmbiguousError,
    FlowNotListedError,
    NameInvalidError,
    ProofInvalidError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
    UnknownUserError,
)
from coflows.model.flow_names import REGISTRY, FlowName
from coflows.model.names import check_user_id
from coflows.registry.choosing import Candidate, choose, unreachable

if TYPE_CHECKING:
    from coflows.registry.client import Registry

logger = logging.getLogger(__name__)

T = TypeVar("T")
LOOKUP_SECONDS = 10.0
MAX_LISTED = 100
"""More are not looked at; so none is chosen then, or who fills the list would be."""

USERS_PER_QUERY = 5
TOO_MANY = 429
MAX_ASKED = 16
"""How many registries are asked at once."""


class Answers(NamedTuple):
    """What each registry answered that did, by its URL, and what became of the others."""

    given: dict[str, Any]
    silent: list[str]


class Proven(NamedTuple):
    """A page of flows: how many there are and are found; its items that are proven, and what is said of the rest."""

    total: int
    filtered: int
    items: list[dict[str, Any]]
    doubts: list[str]


def ask_all(urls: Sequence[str], ask: Callable[[Registry], T], timeout: float = LOOKUP_SECONDS) -> Answers:
    """Ask all registries at the same time. Raises ConfigurationError when there is none or a URL is none, the refusal
    when one refuses (the question is wrong then), RegistryUnavailableError when none answers."""
    if not urls:
        raise ConfigurationError(
            "No registry is configured.",
            hint="Set COFLOWS_REGISTRIES to the URL of one that you trust, or give --registry or registries=[URL].",
        )
    with ThreadPoolExecutor(min(len(urls), MAX_ASKED), thread_name_prefix="coflows-lookup") as threads:
        asked = {url: threads.submit(_ask, url, ask, timeout) for url in urls}
    answers = Answers({}, [])
    for url, future in asked.items():
        try:
            answers.given[url] = future.result()
        except RegistryRefusedError as error:
            if error.status < 500 and error.status != TOO_MANY:
                raise
            answers.silent.append(error.message)
        except RegistryError as error:
            answers.silent.append(error.message)
    if not answers.given:
        raise RegistryUnavailableError(
            f"No registry answers: {' '.join(answers.silent)}",
            hint="Is it running (coflows registry run)? COFLOWS_REGISTRIES, --registry or registries= say where.",
        )
    for text in answers.silent:
        logger.warning("A registry is left out: %s", text)
    return answers


def _ask(url: str, ask: Callable[[Registry], T], timeout: float) -> T:
    # Loaded here because an HTTP client costs more time than fetching a flow, and not every fetch needs it.
    from coflows.registry.client import Registry

    try:
        registry = Registry(url, timeout)
    except NameInvalidError as error:
        raise ConfigurationError(f"{error.message.rstrip('.')} (COFLOWS_REGISTRIES).", hint=error.hint) from error
    with registry:
        return ask(registry)


def proven_page(
    registry: Registry, q: str, by: str = "", pp: int = 10, p: int = 0, timeout: float = LOOKUP_SECONDS
) -> Proven:
    """A page of a registry, with each item proven; RegistryUnavailableError when it takes longer than ``timeout``."""
    from coflows.registry.proof import proven

    deadline = time.monotonic() + timeout
    page = registry.flows(q, by, pp, p)
    items, doubts = [], []
    for flow_id, status in _listed(page, registry.url, pp):
        if time.monotonic() > deadline:
            raise RegistryUnavailableError(f"{registry.url} does not prove what it lists within {timeout} s.")
        try:
            items.append(proven(flow_id, status, registry.proof(flow_id)))
        except ProofInvalidError as error:
            doubts.append(f"{registry.url}: {error.message}")
            logger.warning("Left out: %s", doubts[-1])
        except RegistryRefusedError as error:
            if error.status != 404:  # Else it went in the meantime.
                raise
    return Proven(_count(page, "total"), _count(page, "filtered"), items, doubts)


def _listed(page: dict[str, Any], url: str, most: int) -> list[tuple[str, object]]:
    """The ids of the items, and what is said of their being there."""
    items = page.get("items")
    flows = [one for one in items if isinstance(one, dict)] if isinstance(items, list) else None
    if flows is None or not all(re.fullmatch("[0-9a-f]{32}", str(one.get("id"))) for one in flows):
        raise RegistryError(f"{url} lists no flows.", hint="Is it a registry's URL?")
    return [(one["id"], one.get("status")) for one in flows[:most]]


def _count(page: dict[str, Any], name: str) -> int:
    value = page.get(name)
    return value if isinstance(value, int) else 0


class Lookup:
    """Finds flows by name, each name once. What users in ``trusted`` offer is found before what others do. For one
    thread."""

    def __init__(self, registries: Sequence[str], timeout: float = LOOKUP_SECONDS, trusted: Sequence[str] = ()) -> None:
        self._registries = registries
        self._timeout = timeout
        self._trusted = trusted
        self._found: dict[FlowName, Candidate] = {}

    def find(self, name: FlowName) -> Candidate:
        """Who serves it. Raises what ``choose`` and ``ask_all`` raise."""
        if name not in self._found:
            self._found[name] = self._choose(name)
            logger.info("%s is %s.", name, self._found[name])
        return self._found[name]

    @contextmanager
    def explained(self, user_id: str, broker_url: str) -> Iterator[None]:
        """Says, where a user who was found has no door on the broker, what his node says of that."""
        try:
            yield
        except UnknownUserError as error:
            chosen = next((one for one in self._found.values() if one.user_id == user_id), None)
            if chosen is None:
                raise
            raise unreachable(chosen, broker_url) from error

    def _choose(self, name: FlowName) -> Candidate:
        if self._trusted:
            try:
                return self._among(name, *_queries_of(name, self._trusted))
            except FlowNotListedError:
                pass
        try:
            return self._among(name, _query(name))
        except CoflowsError as error:
            if name.organization is None or error.code != "flow_not_listed":
                raise
            # At other organizations: for the error to say where there is one.
            return self._among(name, _query(FlowName(name.endpoint)))

    def _among(self, name: FlowName, *queries: str) -> Candidate:
        def ask(registry: Registry) -> list[Proven]:
            return [proven_page(registry, query, pp=MAX_LISTED, timeout=self._timeout) for query in queries]

        answers = ask_all(self._registries, ask, self._timeout)
        found: list[tuple[str, Proven]] = [(url, page) for url, pages in answers.given.items() for page in pages]
        pages = [page for _, page in found]
        for url, page in found:
            if page.filtered > MAX_LISTED:
                raise FlowAmbiguousError(
                    f"{url} lists {page.filtered} flows as {name}: too many to see whose it is.",
                    hint=f"Name him who is meant: user_id=... instead of {REGISTRY!r}.",
                )
        candidates = [
            Candidate(
                user_id=item["user_id"],
                endpoint=item["flow_endpoint"],
                organization=item["organization"],
                node=item["node"],
                broker=item["broker"],
                online=item["status"] == "online",
            )
            for page in pages
            for item in page.items
            if item["flow_endpoint"] is not None
        ]
        return choose(name, candidates, [text for page in pages for text in page.doubts], answers.silent)


def _queries_of(name: FlowName, users: Sequence[str]) -> Iterator[str]:
    """What these users offer, of so many in each query that it is short enough."""
    try:
        ids = [check_user_id(user) for user in users]
    except NameInvalidError as error:
        raise ConfigurationError(f"{error.message.rstrip('.')} (COFLOWS_TRUSTED).", hint=error.hint) from error
    for start in range(0, len(ids), USERS_PER_QUERY):
        whose = " or ".join(f'user_id = "{one}"' for one in ids[start : start + USERS_PER_QUERY])
        yield f"({_query(name)}) and ({whose})"


def _query(name: FlowName) -> str:
    endpoint = f'flow_endpoint = "{name.endpoint}"'
    if name.organization is None:
        return f'{endpoint} or name = "{name.endpoint}"'
    quoted = name.organization.replace("\\", "\\\\").replace('"', '\\"')
    return f'{endpoint} and organization = "{quoted}"'
