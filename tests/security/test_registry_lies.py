"""What a registry that lies can do to the nodes that connect to it, and to those who ask it."""

from __future__ import annotations

import contextlib
import gzip
import json
import threading
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from coflows.errors import (
    AccessDeniedError,
    AddressRefusedError,
    RegistryError,
    RegistryRefusedError,
    RegistryUnavailableError,
)
from coflows.identity.keys import Identity
from coflows.registry import Registry, link
from coflows.registry.dialing import Dialer
from coflows.registry.record import MAX_NUMBER
from coflows.registry.resolving import Resolver
from tests.registry_liar import Liar
from tests.registry_stranger import Stranger
from tests.registry_world import Serve, eventually
from tests.services.processes import free_port
from tests.services.proxy import Proxy

NODE = {"registry": False, "feed": False}
FLOWS = [{"name": "F", "endpoint": "f"}]
NOTHING = {"records": 0, "beats": 0}


def test_nobody_else_moves_the_numbers_of_a_node(serve: Serve) -> None:
    """A registry that claims to know the last number that there is would have silenced the node everywhere."""
    service = serve({"flows": FLOWS}, **NODE).service
    before = service.own_offer()
    mallory = Stranger("http://registry.example", service.url)
    last: dict[str, Any] = {"sequence": MAX_NUMBER - 1, "beat": {"beat": MAX_NUMBER - 1}}
    with pytest.raises(AccessDeniedError):
        service.heed(mallory.offer([], user_id=service.identity.user_id, **last))
    with pytest.raises(AccessDeniedError):
        service.heed(mallory.offer([], **last))
    other_node = Stranger("http://registry.example", "http://other.example", service.identity)
    with pytest.raises(AccessDeniedError):
        service.heed(other_node.offer([], **last))
    assert service.own_offer().record == before.record
    itself = Stranger("http://registry.example", service.url, service.identity)
    service.heed(itself.offer([]))
    assert service.own_offer().record != before.record


def welcome(user: Identity, url: str) -> dict[str, Any]:
    return {
        "user_id": user.user_id,
        "url": url,
        "organization": "Liar",
        "registry": True,
        "feed": True,
        "log": "",
        "cursor": NOTHING,
    }


@pytest.mark.parametrize("lie", ["endless", "empty", "again", "entries"])
def test_a_registry_without_end_is_given_up(serve: Serve, lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have kept a thread of whoever connects to it busy for ever."""
    monkeypatch.setattr(link, "MAX_PAGES", 20)
    user = Identity.generate()
    offer = Stranger("", "http://liar.example", user).offer([])
    place: list[Liar] = []

    def answer(method: str, path: str, said: bytes) -> Any:
        if path == "/connect":
            return welcome(user, place[0].url)
        if path == "/update":
            page = json.loads(said)["page"]
            told = {"log": page["log"], "cursor": page["upto"], "missing": []}
            if lie == "again":
                told["cursor"] = {"records": 0, "beats": MAX_NUMBER - 1}
            if lie == "entries":
                told["missing"] = [
                    digest for one in page["offers"] for digest in json.loads(one["record"]["text"])["flows"]
                ]
            return told
        number = len(place[0].asked)
        upto = {"records": 0 if lie == "empty" else number, "beats": 0}
        offers = [offer.model_dump()] if lie == "endless" else []
        after = {"records": 0, "beats": 0}
        return {"log": "0" * 16, "after": after, "upto": upto, "more": True, "offers": offers}

    with Liar(answer) as liar:
        place.append(liar)
        node = serve({"flows": FLOWS}, connect=liar.url, retry=0)
        eventually(lambda: node.service.connections()["connections"][0]["state"] == "stopped", "that it gives up")


def test_an_answer_that_comes_slowly_or_grows_is_not_waited_for() -> None:
    """A byte at a time it would have lasted for days; packed twice, some kilobytes would have been gigabytes."""
    packed = zlib.compress(b"0" + b" " * 2**20)
    for _ in range(2):
        packed = gzip.compress(packed)
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: deflate, gzip, gzip\r\ncontent-length: %d\r\n\r\n"
    slow = threading.Event()

    def answer(method: str, path: str, said: bytes) -> Any:
        if path == "/packed":
            return head % len(packed) + packed
        if path == "/redirected":
            return b"HTTP/1.1 308 Permanent\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
        return drip()

    def drip() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        while not slow.wait(0.05):
            yield b"x: y\r\n"

    with Liar(answer) as liar, Dialer(0.5) as dialer:
        with pytest.raises(RegistryError, match="not answered with JSON"):
            dialer.request("GET", liar.url, "/packed")
        with pytest.raises(AddressRefusedError):
            dialer.request("GET", liar.url, "/redirected")
        with pytest.raises(RegistryUnavailableError):
            dialer.request("GET", liar.url, "/slow")
        slow.set()


def test_what_a_registry_answers_commands_no_terminal() -> None:
    error = {"code": "x\x1b[1m", "message": "\x1b]0;owned\x07\nCRITICAL \x9b2J", "hint": "\r\x1b[2K"}
    content = json.dumps({"error": error}).encode()
    head = b"HTTP/1.1 409 Conflict\r\ncontent-length: %d\r\n\r\n"
    with Liar(lambda *_: head % len(content) + content) as liar, Registry(liar.url) as registry:
        with pytest.raises(RegistryRefusedError) as refused:
            registry.info()
    assert all(text.isprintable() for text in (refused.value.message, refused.value.hint, refused.value.reason))


def test_no_more_is_read_than_is_taken() -> None:
    with Liar(lambda *_: "x" * 100_000) as liar, Dialer(5, most=64 * 1024) as dialer:
        with pytest.raises(RegistryUnavailableError, match="without end"):
            dialer.request("GET", liar.url, "/")


def test_a_connection_that_is_closed_just_when_it_is_used_again_is_made_anew() -> None:
    """Whoever rests closes in the end, and the news of it may cross with the next request."""
    told: Iterator[Any] = iter([{"number": 1}, b"", {"number": 2}, b"", b""])
    with Liar(lambda *_: next(told)) as liar, Dialer(5) as dialer:
        assert dialer.request("GET", liar.url, "/") == {"number": 1}
        assert dialer.request("GET", liar.url, "/") == {"number": 2}
        with pytest.raises(RegistryUnavailableError, match="does not answer"):
            dialer.request("GET", liar.url, "/")
        assert len(liar.asked) == 5


def test_a_request_that_is_made_again_is_signed_again(serve: Serve) -> None:
    """Its answer was lost, not the request: what was signed once would be refused as a replay."""
    port = free_port()
    with contextlib.closing(Proxy(f"http://127.0.0.1:{port}")) as proxy:
        service = serve(url=proxy.url, listen=f"127.0.0.1:{port}").service
        with Registry(proxy.url, identity=service.identity) as owner:
            proxy.cut_after(1, answers=True)
            owner.reconnect()
            assert proxy.cut_done.is_set() and bytes(proxy.said).count(b"POST /reconnect") == 2


def test_who_left_without_hearing_it_has_left(serve: Serve) -> None:
    """The answer to its leave was lost; told again, the registry knows nobody of that name."""
    gone = b'{"error": {"code": "not_connected", "message": "", "hint": ""}}'
    refusal = b"HTTP/1.1 409 Conflict\r\ncontent-length: %d\r\n\r\n%s" % (len(gone), gone)
    told: Iterator[Any] = iter([b"", refusal])
    user = Identity.generate()

    def answer(method: str, path: str, said: bytes) -> Any:
        if method == "DELETE":
            return next(told)
        if path == "/connect":
            return {**welcome(user, liar.url), "registry": False}
        page = json.loads(said)["page"]
        return {"log": page["log"], "cursor": page["upto"], "missing": []}

    with Liar(answer) as liar:
        node = serve({"flows": FLOWS}, connect=[liar.url], **NODE)
        node.wait_idle(30)
        node.service.remove_links()
        assert node.service.connections()["connections"] == []
        assert liar.asked.count("DELETE /connect") == 2


def test_a_name_that_nobody_looks_up_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    never = threading.Event()
    monkeypatch.setattr("coflows.registry.resolving.socket.getaddrinfo", lambda *_, **__: never.wait())
    try:
        with Dialer(0.05) as dialer, pytest.raises(RegistryUnavailableError, match="is not found within"):
            dialer.request("GET", "http://slow.example", "/")
        full = Resolver(most=1)
        for _ in range(2):  # The second one gets no place: the first is looked up on.
            with pytest.raises(TimeoutError):
                full.addresses("slow.example", 80, 0.05)
    finally:
        never.set()
