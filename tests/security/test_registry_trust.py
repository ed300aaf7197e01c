"""What others may not do to a registry, to its nodes, and through it to the network around it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import httpx
import pytest

from coflows.errors import AddressRefusedError, FlowAmbiguousError, RegistryUnavailableError
from coflows.identity.keys import Identity
from coflows.model.flow_names import FlowName
from coflows.registry import exchange, limits, listing, lookup, patience, service
from coflows.registry.dialing import Dialer
from coflows.registry.entry import FlowEntry, digest_of
from coflows.registry.messages import Announcement
from coflows.registry.nodes import PENDING_SECONDS
from coflows.registry.order import parse_order
from coflows.registry.page import Cursor, Offer, Page, SignedText, Update
from coflows.registry.query import parse_query
from coflows.registry.record import Beat
from coflows.registry.requests import sign_request
from tests.registry_stranger import Stranger
from tests.registry_world import Serve, answers, eventually, free_urls, total
from tests.services.network import OWN, Network
from tests.services.processes import free_port

FLOW = FlowEntry(key="f", name="Flow of the stranger", flow_endpoint="f")


@pytest.fixture
def registry(serve: Serve) -> str:
    return serve(organization="Registry").url


@pytest.fixture
def alice(registry: str) -> Stranger:
    """A user whose node has one flow."""
    user = Stranger(registry, "http://alice.example")
    assert user.connect().status_code == 200
    assert user.publish([FLOW]).json()["missing"] == []
    assert total(registry) == 1
    return user


def test_what_changes_something_is_signed(registry: str, alice: Stranger) -> None:
    for method, path, body in (
        ("POST", "/connect", Announcement(offer=alice.offer())),
        ("POST", "/update", Update(page=Page(log="", after=Cursor(), upto=Cursor()))),
    ):
        assert httpx.request(method, f"{registry}{path}", json=body.model_dump()).status_code == 401
    wrong = alice.ask("DELETE", "/connect", to="http://another.example")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (403, "access_denied")
    content = Update(page=Page(log="", after=Cursor(), upto=Cursor())).model_dump_json().encode()
    headers = sign_request(alice.identity, registry, "POST", "/update", content, alice.next(), alice.url)
    headers["content-type"] = "application/json"
    assert httpx.post(f"{registry}/update", content=content + b" ", headers=headers).status_code == 403
    assert total(registry) == 1


def test_nobody_speaks_for_another(registry: str, alice: Stranger) -> None:
    mallory = Stranger(registry, "http://mallory.example")
    assert mallory.connect().status_code == 200
    # Not in her name, not with her key on it, not for her URL, and not by leaving.
    forged = mallory.offer([], user_id=alice.identity.user_id, url=alice.url, withdrawn=True,
                           beat={"user_id": alice.identity.user_id, "url": alice.url})  # fmt: skip
    assert mallory.update(forged).status_code == 200
    assert total(registry) == 1
    assert mallory.ask("DELETE", "/connect", url=alice.url).status_code == 409
    squatter = Stranger(registry, alice.url)
    refused = squatter.connect()
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "place_taken")
    assert mallory.connect(squatter.offer()).status_code == 403
    nodes = {one["url"]: one["user_id"] for one in httpx.get(f"{registry}/map").json()["nodes"]}
    assert nodes[alice.url] == alice.identity.user_id
    assert total(registry) == 1


def test_a_registry_cannot_change_what_it_passes_on(registry: str, alice: Stranger) -> None:
    """A peer that is a registry may pass on what others say, as they said it."""
    relay = Stranger(registry, "http://relay.example")
    assert relay.connect(relay.offer(registry=True, feed=True)).status_code == 200
    old, new = alice.offer([FLOW], sequence=1), alice.offer([FLOW])
    assert alice.update(new).status_code == 200
    assert relay.update(old).status_code == 200
    taken = alice.offer([])
    assert taken.record is not None
    lie = json.loads(taken.record.text) | {"organization": "Mallory"}
    changed = taken.model_copy(update={"record": SignedText(text=json.dumps(lie), signature=taken.record.signature)})
    assert relay.update(changed).status_code == 200

    def beats() -> list[str]:
        offers = httpx.get(f"{registry}/changes").json()["offers"]
        return [offer["beat"]["text"] for offer in offers if alice.url in offer["beat"]["text"]]

    before = beats()
    beat = Beat(user_id=alice.identity.user_id, url=alice.url, beat=alice.next())
    assert relay.update(Offer(beat=SignedText.of(beat.sign(relay.identity)))).status_code == 200
    assert beats() == before and len(before) == 1
    squatter = Stranger(registry, alice.url)
    texts = {digest_of(FLOW.text()): FLOW.text()}
    assert relay.update(squatter.offer([FLOW]), entries=texts).json()["missing"] == []
    assert {one["user_id"] for one in httpx.get(f"{registry}/flows").json()["items"]} == {alice.identity.user_id}
    assert total(registry) == 1
    assert relay.update(taken).status_code == 200
    assert total(registry) == 0


def test_requests_do_not_come_twice(registry: str, alice: Stranger) -> None:
    number = alice.next()
    assert alice.ask("DELETE", "/connect", number=number).status_code == 204
    assert total(registry) == 0
    assert alice.connect().status_code == 200
    alice.publish([FLOW])
    assert alice.ask("DELETE", "/connect", number=number).status_code == 403
    assert total(registry) == 1


def test_old_records_and_beats_bring_nothing_back(registry: str, alice: Stranger) -> None:
    before = alice.offer([FLOW])
    assert alice.update(alice.offer([], withdrawn=True)).status_code == 200
    assert total(registry) == 0
    alice.update(before)
    assert total(registry) == 0
    ancient = Stranger(registry, "http://ancient.example")
    assert ancient.connect().status_code == 200
    for beat in (1, int((time.time() + 3600) * 1000)):
        ancient.update(ancient.offer([FLOW], beat={"beat": beat}), entries={digest_of(FLOW.text()): FLOW.text()})
        assert total(registry) == 0
        refused = ancient.connect(ancient.offer(beat={"beat": beat}))
        assert refused.status_code == 403 and "clock" in refused.json()["error"]["hint"]


def test_limits(serve: Serve) -> None:
    registry = serve(max_flows_per_node=2, max_nodes_per_user=2).url
    user = Identity.generate()
    flows = [FlowEntry(key=f"{one}", name="Flow") for one in range(3)]
    node = Stranger(registry, "http://one.example", user)
    assert node.connect().status_code == 200
    assert node.publish(flows).status_code == 200
    assert total(registry) == 0
    node.publish(flows[:2])
    assert total(registry) == 2
    for number in (2, 3):
        another = Stranger(registry, f"http://{number}.example", user)
        another.connect()
        another.publish(flows[:1])
    assert total(registry) == 3
    unread = httpx.post(f"{registry}/update", content=b"x" * 5_000_000)
    assert (unread.status_code, unread.json()["error"]["code"]) == (413, "message_too_large")
    streamed = httpx.post(f"{registry}/update", content=(b"x" * 100_000 for _ in range(100)))
    assert streamed.status_code == 413
    wrong = node.update(node.offer([FLOW]), entries={digest_of(FLOW.text()): "{}"})
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, "serialization")


def test_keys_that_cost_nothing_fill_no_registry(serve: Serve) -> None:
    """Whoever makes ever more users and nodes takes places from himself alone, once others come from elsewhere."""
    port = free_port()
    running = serve(url="http://registry.example", listen=f"127.0.0.1:{port}", max_nodes=4).service

    def comes(name: str, address: str) -> int:
        one = Stranger(running.url, f"http://{name}.example")
        one.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"x-forwarded-for": address})
        with one.http:
            status = one.connect().status_code
            return one.publish([FLOW]).status_code if status == 200 else status

    def there() -> set[str]:
        return {node["url"].partition("//")[2].partition(".")[0] for node in running.map()["nodes"]} - {"registry"}

    assert [comes(f"mallory{number}", "192.0.2.1") for number in range(5)] == [200, 200, 200, 200, 403]
    assert there() == {"mallory0", "mallory1", "mallory2"}  # The registry's own node is one of them.
    assert comes("alice", "198.51.100.1") == comes("bob", "203.0.113.1") == 200
    assert there() == {"mallory0", "alice", "bob"}
    assert comes("mallory6", "192.0.2.1") == 403
    assert running.listing.page(parse_query("stranger"), parse_order(""), 9, 0)[:2] == (3, 3)


def test_what_is_kept_is_bounded(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    large = [FlowEntry(key=str(n), name=f"F{n}", description="x" * 8000) for n in range(5)]
    running = serve(max_bytes=30_000).service
    mallory, bob = (Stranger(running.url, f"http://{name}.example") for name in ("mallory", "bob"))
    for one in (mallory, bob):
        assert one.connect().status_code == 200
    mallory.publish(large)
    assert running.listing.total() == 0
    mallory.publish(large[:3])
    assert running.listing.total() == 3
    bob.publish([FLOW, large[4]])  # Of the same network, which would hold more then.
    assert running.listing.total() == 3
    mallory.publish(large[:1])
    bob.publish([FLOW, large[4]])
    assert running.listing.total() == 3
    # Entries of a record that never comes whole are not kept for an hour, when they are many.
    monkeypatch.setattr(exchange, "MAX_PENDING_BYTES", 20_000)
    pending = {digest_of(flow.text()): flow.text() for flow in large[1:4]}
    other = FlowEntry(key="never", name="Never")
    for digest, text in pending.items():
        assert mallory.update(mallory.offer([*large, other]), entries={digest: text}).json()["missing"]
    assert 0 < len(running.entries(list(pending))) < len(pending)
    assert running.listing.total() == 3


def test_the_owner_alone_commands(serve: Serve, registry: str) -> None:
    service = serve({"flows": [{"name": "Flow"}]}, connect=registry, feed=False)
    service.wait_idle(30)
    for headers in ({"origin": "http://evil.example"}, {"x-forwarded-for": "8.8.8.8"}, {"host": "evil.example"}):
        refused = httpx.delete(f"{service.url}/connect", headers=headers)
        assert refused.status_code == (421 if "host" in headers else 401)
    stranger = Stranger(service.url, "")
    assert stranger.ask("DELETE", "/connect").status_code == 401
    assert total(registry) == 1
    owner = Stranger(service.url, "", service.service.identity)
    assert owner.ask("DELETE", "/connect").status_code == 204
    assert total(registry) == 0 and total(service.url) == 1
    assert httpx.post(f"{service.url}/connect", json={"url": registry}).status_code == 200
    eventually(lambda: total(registry) == 1, "the flow is back")


# -- dialling ----------------------------------------------------------------------------------------------


class Elsewhere(BaseHTTPRequestHandler):
    """Answers with a redirection to what may not be read."""

    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_response(302)
        self.send_header("location", "http://169.254.169.254/latest/meta-data")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def elsewhere() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


NOWHERE = (
    *("http://localhost:1", "http://169.254.169.254", "http://[::1]:1", "http://10.0.0.1", "http://[fe80::1]"),
    *("http://[::ffff:127.0.0.1]", "http://0.0.0.0", "http://100.100.100.200", "http://2130706433"),
)


def test_what_is_dialled(elsewhere: str) -> None:
    with Dialer(5, ()) as dialer, Dialer(5, ("loopback",)) as near:
        for url in (elsewhere, *NOWHERE):
            with pytest.raises((AddressRefusedError, RegistryUnavailableError)) as refused:
                dialer.request("GET", url, "/")
            assert isinstance(refused.value, AddressRefusedError) or "2130706433" in url
        with pytest.raises(AddressRefusedError, match="redirected"):
            near.request("GET", elsewhere, "/")


def test_a_name_is_looked_up_once(elsewhere: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere at the second look leads nowhere: what was checked is what is dialled."""
    Elsewhere.asked.clear()
    looks: list[str] = []

    def look(host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        looks.append(host)
        address = "192.0.2.1" if looks.count("rebinding.example") > 1 else "127.0.0.1"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    port = int(elsewhere.rpartition(":")[2])
    with Dialer(5, ("loopback",)) as near, monkeypatch.context() as patched:
        patched.setattr("coflows.registry.resolving.socket.getaddrinfo", look)
        with pytest.raises(AddressRefusedError, match="redirected"):
            near.request("GET", f"http://rebinding.example:{port}", "/")
    assert Elsewhere.asked == ["/"] and "rebinding.example" in looks


def test_a_disputed_place_is_asked(serve: Serve, registry: str, alice: Stranger) -> None:
    """Who was there first does not keep a URL from the node that answers at it."""
    (url,) = free_urls(1)
    squatter = Stranger(registry, url)
    assert squatter.connect().status_code == 200
    squatter.publish([FLOW])
    assert total(registry) == 2
    node = serve({"flows": [{"name": "One"}, {"name": "Two"}]}, url=url, connect=registry, registry=False, feed=False)
    node.wait_idle(30)
    eventually(lambda: total(registry) == 3, "the node's flows in the place of the squatter's")


def test_who_passes_a_node_on_first_does_not_remove_it_by_leaving(registry: str, alice: Stranger) -> None:
    """Quicker than the node itself and gone at once, it would have unlisted it until its next beat, again and again."""
    relay = Stranger(registry, "http://relay.example")
    for _ in range(2):
        assert relay.connect(relay.offer(registry=True, feed=True)).status_code == 200
        news = alice.offer([FLOW])
        assert relay.update(news, news.model_copy(update={"record": None})).status_code == 200
        assert relay.ask("DELETE", "/connect").status_code == 204
        assert total(registry) == 1
    # Nor when she is known through another registry.
    other = Stranger(registry, "http://other.example")
    bob = Stranger(registry, "http://bob.example")
    assert other.connect(other.offer(registry=True, feed=True)).status_code == 200
    assert other.update(bob.offer([FLOW])).status_code == 200
    assert relay.connect(relay.offer(registry=True, feed=True)).status_code == 200
    assert total(registry) == 2
    for news in (bob.offer([FLOW]), bob.offer([FLOW]).model_copy(update={"record": None})):
        assert relay.update(news).status_code == 200
    assert relay.ask("DELETE", "/connect").status_code == 204
    assert total(registry) == 2
    assert other.ask("DELETE", "/connect").status_code == 204
    assert total(registry) == 1


def test_a_node_does_not_age_by_what_others_say(serve: Serve) -> None:
    registry = serve(organization="Registry", offline_after=600).url
    alice, relay = Stranger(registry, "http://alice.example"), Stranger(registry, "http://relay.example")
    assert alice.connect().status_code == 200 and alice.publish([FLOW]).status_code == 200
    assert relay.connect(relay.offer(registry=True, feed=True)).status_code == 200
    assert relay.update(alice.offer([FLOW], organization="Alice").model_copy(update={"age": 80_000})).status_code == 200
    (listed,) = [one for one in httpx.get(f"{registry}/changes").json()["offers"] if alice.url in one["beat"]["text"]]
    assert "Alice" in listed["record"]["text"] and listed["age"] < 600
    assert [one["status"] for one in httpx.get(f"{registry}/flows").json()["items"]] == ["online"]


@pytest.mark.parametrize(
    "begun",
    [
        b"",
        b"GET /flows HTTP/1.1\r\nhost: localhost\r\nx: ",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n|GET /health HTT",
        b"POST /entries HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 20\r\n\r\n{",
    ],
)
def test_who_does_not_say_what_he_wants_is_not_waited_for(
    registry: str, begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He would have held one of the connections that there may be, for ever."""
    monkeypatch.setattr(patience, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", int(registry.rpartition(":")[2])), timeout=30) as connection:
        whole, _, part = begun.rpartition(b"|")
        if whole:
            connection.sendall(whole)
            assert b" 200 " in connection.recv(4096)
        connection.sendall(part)
        answers = b"".join(iter(lambda: connection.recv(4096), b""))
    assert (b" 408 " in answers) == begun.startswith(b"POST")
    assert httpx.get(f"{registry}/health").status_code == 200


def test_who_asks_too_often_is_refused(serve: Serve) -> None:
    port = free_port()
    serve(url="http://registry.example", listen=f"127.0.0.1:{port}", max_requests_per_client=0.5)

    def ask(client: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{port}/health", headers={"x-forwarded-for": f"192.0.2.1, {client}"})

    answers = [ask("203.0.113.1") for _ in range(10)]
    assert [one.status_code for one in answers[:5]] == [200] * 5
    refused = [one for one in answers if one.status_code == 429]
    assert refused and refused[0].json()["error"]["code"] == "too_many_requests" and refused[0].headers["retry-after"]
    assert ask("203.0.113.2").status_code == httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200


def test_a_client_has_so_many_connections(serve: Serve) -> None:
    with closing(Network(0)) as network:  # Who asks over loopback counts as the owner.
        place = (network.address(OWN), free_port())
        url = serve(url="http://{}:{}".format(*place), max_connections_per_client=2, allow_plaintext=True).url
        with socket.create_connection(place), socket.create_connection(place):
            eventually(lambda: not answers(url), "that a third one is closed")
        eventually(lambda: answers(url), "that those before are gone")


def test_a_service_has_so_many_connections(serve: Serve) -> None:
    url = serve(max_connections=2).url
    place = ("127.0.0.1", int(url.rpartition(":")[2]))
    with socket.create_connection(place), socket.create_connection(place):
        eventually(lambda: httpx.get(f"{url}/health").status_code == 503, "that a third one is refused")
    eventually(lambda: answers(url), "that those before are gone")


def test_nothing_is_loaded_from_elsewhere(registry: str) -> None:
    for path in ("/docs", "/redoc"):
        assert httpx.get(f"{registry}{path}", headers={"accept": "text/html"}).status_code == 404
    assert httpx.get(f"{registry}/openapi.json").status_code == 200


def test_what_is_told_of_all_does_not_grow_without_end(
    registry: str, alice: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MAX_COUNTED", 5)
    monkeypatch.setattr(service, "MAX_SHOWN", 3)
    flows = [FlowEntry(key=str(n), name="F", tags=["common", f"{n}"]) for n in range(20)]
    for name in ("one", "two"):
        node = Stranger(registry, f"http://{name}.example")
        assert node.connect().status_code == 200
        connect = [f"http://{n}.example" for n in range(2)]
        assert node.publish(flows, organization=name, connect=connect).json()["missing"] == []
    counts = httpx.get(f"{registry}/counts").json()
    assert counts["organizations"] == {"": 1, "one": 20, "two": 20}
    assert len(counts["tags"]) == 5 and counts["tags"]["common"] == 40
    shown = httpx.get(f"{registry}/map").json()
    assert len(shown["connections"]) == 3 and len(shown["nodes"]) == 4


def test_entries_of_no_record_are_not_kept(serve: Serve) -> None:
    """A node that sends entries for a record that it never completes would have filled the disk."""
    running = serve(organization="Registry").service
    alice = Stranger(running.url, "http://alice.example")
    assert alice.connect().status_code == 200

    def kept() -> int:
        return len(running.entries([digest_of(flow.text()) for flow in (FLOW, lost)]))

    lost = FlowEntry(key="lost", name="Lost")
    assert alice.publish([FLOW]).json()["missing"] == []
    never = FlowEntry(key="never", name="Never")
    told = alice.update(alice.offer([FLOW, lost, never]), entries={digest_of(lost.text()): lost.text()})
    assert told.json()["missing"] == [digest_of(never.text())]
    for later, left in ((0.0, 2), (PENDING_SECONDS + 1, 1)):
        with running._db.write() as db:
            running._nodes.forget_entries(db, time.time() + later)
        assert kept() == left


def test_a_crowd_of_flows_does_not_hide_another_users(
    registry: str, alice: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Had only the first of them been looked at, the name would have been his who fills the list."""
    monkeypatch.setattr(lookup, "MAX_LISTED", 3)
    mallory = Stranger(registry, "http://mallory.example")
    assert mallory.connect().status_code == 200
    crowd = [FlowEntry(key=str(number), name="!", flow_endpoint="f") for number in range(3)]
    assert mallory.publish(crowd, organization="Acme").json()["missing"] == []
    for name in (FlowName("f"), FlowName("f", "Acme")):
        with pytest.raises(FlowAmbiguousError) if name.organization is None else nullcontext():
            lookup.Lookup([registry]).find(name)
    chosen = lookup.Lookup([registry], trusted=[alice.identity.user_id]).find(FlowName("f"))
    assert chosen.user_id == alice.identity.user_id


def test_a_page_of_a_name_that_leads_here_reads_nothing(serve: Serve, registry: str) -> None:
    """A browser takes it for the page's own site; what a service of this machine lists is not for everybody."""
    for host in ("rebinding.example", "127.0.0.1.rebinding.example", "a_b.example", "localhost.example:3366"):
        for path in ("/", "/flows", "/site/script.js"):
            assert httpx.get(f"{registry}{path}", headers={"host": host, "accept": "text/html"}).status_code == 421
    behind_proxy = serve(url="https://registry.example", listen="127.0.0.1:0")
    port = behind_proxy._hosted._socket.getsockname()[1]
    assert httpx.get(f"http://127.0.0.1:{port}/", headers={"host": "registry.example"}).status_code == 200
