"""Flows are found in registries and fetched by name, by clients and as subflows; a registry that lies leads nowhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from coflows import Client, CompositeFlow, FlowMessage, start_users
from coflows.cli import main
from coflows.errors import (
    ConfigurationError,
    FlowAmbiguousError,
    FlowConfigError,
    FlowInstanceError,
    FlowNotListedError,
    FlowOfflineError,
    NameInvalidError,
    OtherBrokerError,
    ProofInvalidError,
    RegistryUnavailableError,
)
from coflows.model.flow_names import FlowName
from coflows.registry import RunningService, start_service
from coflows.registry.lookup import Lookup
from coflows.serving import get_flow_instance, serve_flow
from tests.registry_world import eventually, free_urls, get
from workers import run_dispatch_worker_thread, run_get_instance_worker_thread

TIMEOUT = 30
HERE = "http://localhost:0"
SOON = {"heartbeat": 0.2, "offline_after": 1.5}
REVERSE = "reverse_number_atomic"


class Asking(CompositeFlow):
    """Asks a subflow that is named, not known."""

    default_config = {
        "name": "Asking",
        "description": "Asks a subflow that it knows by name.",
        "subflows_config": {"reverse": {"user_id": "registry", "flow_endpoint": f"coflows://Acme/{REVERSE}"}},
    }

    def run(self, input_message: FlowMessage) -> dict[str, Any]:
        return self.subflows["reverse"].ask(input_message.data, timeout=TIMEOUT)


class AskingNobody(CompositeFlow):
    """Has a subflow that no registry lists."""

    default_config = {
        "name": "AskingNobody",
        "description": "Its subflow is not to be found.",
        "subflows_config": {"lost": {"user_id": "registry", "flow_endpoint": "coflows://Acme/nothing"}},
    }

    def run(self, input_message: FlowMessage) -> None:
        """Nothing."""


class World:
    """A registry; alice of Acme, who serves and offers, and bob, on one broker; both trust the registry."""

    def __init__(self, stack: ExitStack) -> None:
        self.registry: RunningService = stack.enter_context(start_service(url=HERE, cache_reset=True, **SOON))
        self.alice, self.bob = (stack.enter_context(cl) for cl in start_users(2, registries=[self.registry.url]))
        for cl in (self.alice, self.bob):
            run_dispatch_worker_thread(cl)
            run_get_instance_worker_thread(cl)
        serve_flow(self.alice, "ReverseNumberFlowModule.ReverseNumberAtomicFlow", REVERSE)
        self.node = stack.enter_context(self.offer(self.alice, "Acme"))
        self.node.wait_idle(TIMEOUT)

    def offer(self, cl: Client | dict[str, Any], organization: str) -> RunningService:
        return start_service(
            cl, url=HERE, organization=organization, connect=[self.registry.url], registry=False, feed=False, **SOON
        )


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("COFLOWS_HOME", str(tmp_path_factory.mktemp("home")))
        yield World(stack)


@pytest.mark.parametrize(
    ("endpoint", "user_id"),
    [(REVERSE, "registry"), (f"coflows://Acme/{REVERSE}", "registry"), (f"coflows://Acme/{REVERSE}", "local")],
)
def test_fetched_by_name(world: World, endpoint: str, user_id: str) -> None:
    flow = get_flow_instance(world.bob, endpoint, user_id=user_id)
    assert flow.user_id == world.alice.user_id
    assert flow.ask({"id": 0, "number": 1234}, timeout=TIMEOUT)["output_number"] == 4321


def test_who_offers_it_may_be_oneself(world: World) -> None:
    assert get_flow_instance(world.alice, REVERSE, user_id="registry").user_id == world.alice.user_id


def test_a_subflow_is_looked_up_by_its_parents_owner(world: World) -> None:
    (carol,) = start_users(1, world.bob.broker.url, registries=[])
    with carol:
        serve_flow(world.bob, f"{__name__}.Asking", "asking")
        flow = get_flow_instance(carol, "asking", user_id=world.bob.user_id)
        assert flow.ask({"id": 0, "number": 98}, timeout=TIMEOUT)["output_number"] == 89
        serve_flow(world.bob, f"{__name__}.AskingNobody", "asking_nobody")
        with pytest.raises(FlowInstanceError, match=r"subflow 'lost' .*flow_not_listed: No registry lists .*nothing"):
            get_flow_instance(carol, "asking_nobody", user_id=world.bob.user_id)


@pytest.mark.parametrize("user_id", ["local", "x"])
def test_a_subflow_that_is_looked_up_says_so(user_id: str) -> None:
    with pytest.raises(FlowConfigError):
        Asking.get_config(subflows_config={"reverse": {"user_id": user_id}})


def test_what_cannot_be_found(world: World) -> None:
    with pytest.raises(FlowNotListedError, match="nothing"):
        get_flow_instance(world.bob, "nothing", user_id="registry")
    with pytest.raises(FlowNotListedError, match=f"Like it there is: {REVERSE} of Acme"):
        get_flow_instance(world.bob, f"coflows://Beta/{REVERSE}")
    with pytest.raises(NameInvalidError):
        get_flow_instance(world.bob, f"coflows://Acme/{REVERSE}", user_id=world.alice.user_id)


def test_whom_to_ask(world: World) -> None:
    (away,) = free_urls(1)
    broker = world.bob.broker.url
    with ExitStack() as stack:

        def trusting(*urls: str) -> Client:
            return stack.enter_context(start_users(1, broker, registries=urls)[0])

        for urls, kind in (((), ConfigurationError), (("x",), ConfigurationError), ((away,), RegistryUnavailableError)):
            with pytest.raises(kind):
                get_flow_instance(trusting(*urls), REVERSE, user_id="registry")
        flow = get_flow_instance(trusting(away, world.registry.url), REVERSE, user_id="registry")
        assert flow.user_id == world.alice.user_id


def test_an_ambiguous_name(world: World) -> None:
    serve_flow(world.bob, "ReverseNumberFlowModule.ReverseNumberAtomicFlow", REVERSE)
    with world.offer(world.bob, "Beta") as node:
        node.wait_idle(TIMEOUT)
        with pytest.raises(FlowAmbiguousError) as raised:
            get_flow_instance(world.bob, REVERSE, user_id="registry")
        assert world.alice.user_id in str(raised.value) and world.bob.user_id in str(raised.value)
        for organization, owner in (("Acme", world.alice), ("Beta", world.bob)):
            assert get_flow_instance(world.alice, f"coflows://{organization}/{REVERSE}").user_id == owner.user_id
        for trusted in (world.alice, world.bob):
            lookup = Lookup([world.registry.url], trusted=[*(f"{'a' * 51}{end}" for end in "aq"), trusted.user_id])
            assert lookup.find(FlowName(REVERSE)).user_id == trusted.user_id
        httpx.delete(f"{node.url}/connect").raise_for_status()
    assert get_flow_instance(world.bob, REVERSE, user_id="registry").user_id == world.alice.user_id
    # Whom he trusts does not offer it: then it is anybody's.
    found = Lookup([world.registry.url], trusted=[world.bob.user_id]).find(FlowName(REVERSE))
    assert found.user_id == world.alice.user_id
    with pytest.raises(ConfigurationError, match="COFLOWS_TRUSTED"):
        Lookup([world.registry.url], trusted=["bob"]).find(FlowName(REVERSE))


def test_another_broker(world: World) -> None:
    (elsewhere,) = start_users(1, registries=[world.registry.url])
    with elsewhere, pytest.raises(OtherBrokerError, match=world.alice.user_id):
        get_flow_instance(elsewhere, REVERSE, user_id="registry")


def test_who_is_offline(world: World) -> None:
    with world.offer({"flows": [{"endpoint": "soon_away"}]}, "Acme") as node:
        node.wait_idle(TIMEOUT)
    url = f'{world.registry.url}/flows?q=flow_endpoint="soon_away"'
    eventually(lambda: get(url)["items"][0]["status"] == "offline", "that the node is away")
    with pytest.raises(FlowOfflineError, match="soon_away of Acme"):
        get_flow_instance(world.bob, "soon_away", user_id="registry")


# -- registries that lie ------------------------------------------------------------------------------------

Lie = Callable[[str, dict[str, Any]], object]


@pytest.fixture
def lying(world: World) -> Iterator[Callable[[Lie], str]]:
    """Starts a registry that passes on what the real one answers, changed; gives its URL."""
    servers: list[ThreadingHTTPServer] = []

    def start(lie: Lie) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = httpx.get(f"{world.registry.url}{self.path}").json()
                lie(self.path, answer)
                body = json.dumps(answer).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://localhost:{servers[-1].server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def changed(old: str, new: str) -> Lie:
    """In what a proof says, one text is in the place of another."""

    def lie(path: str, answer: dict[str, Any]) -> None:
        if path.endswith("/proof"):
            answer["record"]["text"] = answer["record"]["text"].replace(old, new)
            answer["entry"] = answer["entry"].replace(old, new)

    return lie


def test_a_lie_of_the_listing_alone_changes_nothing(world: World, lying: Callable[[Lie], str]) -> None:
    def lie(_path: str, answer: dict[str, Any]) -> None:
        for item in answer.get("items", ()):
            item["user_id"] = world.bob.user_id

    (cl,) = start_users(1, world.bob.broker.url, registries=[lying(lie)])
    with cl:
        assert get_flow_instance(cl, REVERSE, user_id="registry").user_id == world.alice.user_id


def test_what_its_user_has_not_signed_is_refused(world: World, lying: Callable[[Lie], str]) -> None:
    def of_another(path: str, answer: dict[str, Any]) -> None:
        for item in answer.get("items", ()):
            item["id"] = "0" * 32
        if "error" in answer:
            answer.clear()
            (item,) = get(f'{world.registry.url}/flows?q=flow_endpoint="{REVERSE}"')["items"]
            answer.update(get(f"{world.registry.url}/flows/{item['id']}/proof"))

    def of_another_kind(path: str, answer: dict[str, Any]) -> None:
        if path.endswith("/proof"):
            answer["entry"] = answer["entry"].replace('"author":""', '"author":"Mallory"')

    def none(path: str, answer: dict[str, Any]) -> None:
        if path.endswith("/proof"):
            answer.clear()

    texts = ((world.alice.user_id, world.bob.user_id), ("Acme", "Other"), (REVERSE, "x"))
    for lie in (*(changed(old, new) for old, new in texts), of_another, of_another_kind, none):
        (cl,) = start_users(1, world.bob.broker.url, registries=[lying(lie)])
        with cl, pytest.raises(ProofInvalidError):
            get_flow_instance(cl, REVERSE, user_id="registry")


def test_a_registry_that_answers_nonsense_is_as_good_as_none(world: World, lying: Callable[[Lie], str]) -> None:
    for nonsense in ({}, {"items": 1}, {"items": [{"id": 1}]}, {"items": [1]}):

        def lie(_path: str, answer: dict[str, Any], said: dict[str, Any] = nonsense) -> None:
            answer.clear()
            answer.update(said)

        (cl,) = start_users(1, world.bob.broker.url, registries=[lying(lie)])
        with cl, pytest.raises((RegistryUnavailableError, FlowNotListedError)):
            get_flow_instance(cl, REVERSE, user_id="registry")


# -- coflows find -------------------------------------------------------------------------------------------


@pytest.fixture
def coflows(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """Runs a command here; gives its exit code and what it printed."""
    monkeypatch.setattr("sys.argv", ["coflows"])

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(words)
        told = capsys.readouterr()
        return int(ended.value.code or 0), told.out, told.err

    return run


def test_find(world: World, coflows: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = coflows("find", "reverse", "--registry", world.registry.url)
    assert code == 0 and out.splitlines()[1].split()[0] == REVERSE
    assert all(text in out for text in (world.alice.user_id, "Acme", "online", "1 of "))

    monkeypatch.setenv("COFLOWS_REGISTRIES", f"{free_urls(1)[0]}, {world.registry.url}")
    code, out, _ = coflows("find", "@organization(acme)", "--by", "name:d", "--per-page", "1", "--page", "0", "--json")
    said = json.loads(out)
    assert code == 0 and len(said["items"]) == 1 == len(said["silent"]) and said["pp"] == 1
    assert said["registries"][0]["filtered"] >= 1
    assert said["items"][0]["registries"] == [world.registry.url]


def test_find_fails_clearly(world: World, coflows: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, _, err = coflows("find", "x")
    assert code == 2 and "COFLOWS_REGISTRIES" in err
    code, _, err = coflows("find", "x", "--registry", free_urls(1)[0])
    assert code == 12 and "No registry answers" in err
    code, _, err = coflows("find", "nofield = 1", "--registry", world.registry.url)
    assert code == 12 and "There is no field 'nofield'" in err


def test_find_leaves_out_what_is_not_signed(
    world: World, lying: Callable[[Lie], str], coflows: Callable[..., tuple[int, str, str]]
) -> None:
    url = lying(changed(world.alice.user_id, world.bob.user_id))
    code, out, err = coflows("find", REVERSE, "--registry", url)
    assert code == 0 and REVERSE not in out and "Left out" in err


def test_find_does_not_let_others_command_the_terminal(
    world: World, coflows: Callable[..., tuple[int, str, str]]
) -> None:
    flow = {"endpoint": "hostile", "name": "hostile \u009b31m\u202e"}
    with world.offer({"flows": [flow]}, "Acme") as node:
        node.wait_idle(TIMEOUT)
        _, out, _ = coflows("find", "hostile", "--registry", world.registry.url)
    assert "hostile ?31m?" in out
