"""What registries say of nodes over time: as they come, change, fall silent, leave and come back."""

from __future__ import annotations

import contextlib
import json
import random
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from coflows import AtomicFlow, Client, connect
from coflows.doorbell import bells_in
from coflows.errors import ConfigurationError
from coflows.identity.home import Home
from coflows.identity.keys import Identity
from coflows.registry import Registry, RunningService, run_service
from coflows.registry.entry import FlowEntry
from coflows.serving import serve_flow, unserve_flow
from coflows.workflow import Colonies
from tests.registry_stranger import Stranger
from tests.registry_world import Serve, answers, eventually, free_urls, get, run_process, total

FLOWS = [{"name": "One", "tags": ["A"]}, {"name": "Two", "tags": ["a"]}]
NODE = {"registry": False, "feed": False}


class Reverser(AtomicFlow):
    """Looked up by its name when its endpoint is offered."""

    default_config = {
        "name": "Reverser",
        "description": "Turns a number round.",
        "tags": ["math"],
        "input_interface": ["number"],
        "output_interface": ["reversed"],
    }

    def run(self, input_message: Any) -> dict[str, Any]:
        return {}


def names(url: str) -> list[str]:
    return [item["name"] for item in get(f"{url}/flows?pp=1000")["items"]]


def test_what_a_user_serves_is_offered(serve: Serve, users: Callable[..., list[Client]]) -> None:
    (alice,) = users(1)
    registry = serve()
    serve_flow(alice, Reverser, "reverse")
    Colonies(alice).add_colony("hers")  # Served too, but nothing to be found.
    node = serve(alice, connect=registry.url, organization="Alice", **NODE)
    eventually(lambda: names(registry.url) == ["Reverser"], "what was served before")
    serve_flow(alice, Reverser, "another")
    eventually(lambda: total(registry.url) == 2, "what is served now")
    unserve_flow(alice, "reverse")
    eventually(lambda: total(registry.url) == 1, "what is served still")
    (item,) = Registry(registry.url).flows("flow_endpoint = another")["items"]
    schema = {"type": "object", "properties": {"number": {}}, "required": ["number"]}
    assert item == {
        "id": item["id"],
        "name": "Reverser",
        "organization": "Alice",
        "description": "Turns a number round.",
        "author": "",
        "tags": ["math"],
        "url": f"{node.url}/flows/{item['id']}",
        "node": node.url,
        "user_id": alice.user_id,
        "flow_endpoint": "another",
        "broker": "embedded://",
        "status": "online",
        "input_schema": schema,
        "output_schema": {"type": "object", "properties": {"reversed": {}}, "required": ["reversed"]},
    }
    assert Registry(registry.url).flow(item["id"]) == item
    assert httpx.get(f"{registry.url}/flows/{'0' * 32}").status_code == 404


def test_a_node_costs_the_workers_of_its_user_nothing(serve: Serve, users: Callable[..., list[Client]]) -> None:
    """A watch of his store would have had each of their commits logged, and read by the node."""
    (alice,) = users(1)
    node = serve(alice, **NODE)
    serve_flow(alice, Reverser, "reverse")
    eventually(lambda: total(node.url) == 1, "what is served now")
    store = Path(alice.store.url.removeprefix("sqlite:///"))
    assert store.exists() and not bells_in(store.with_name(f"{store.name}-watch"))


def test_registries_pass_on(serve: Serve) -> None:
    """Through a chain, both ways: who is connected takes in what the other one has."""
    first = serve(organization="First")
    second = serve(organization="Second", connect=first.url)
    third = serve(organization="Third", connect=second.url)
    node = serve({"flows": FLOWS}, organization="Node", connect=third.url, **NODE)
    other = serve({"flows": FLOWS[:1]}, organization="Other", connect=first.url, **NODE)
    registries = (first, second, third)
    for service in registries:
        eventually(lambda url=service.url: total(url) == 3, f"all flows at {service.url}")
    assert total(node.url) == 2 and total(other.url) == 1
    everywhere = [get(f"{service.url}/map")["nodes"] for service in registries]
    assert {(one["url"], one["role"]) for one in everywhere[0]} == {
        *((service.url, "registry") for service in registries),
        *((service.url, "node") for service in (node, other)),
    }
    connections = {(one["source"], one["target"]) for one in get(f"{first.url}/map")["connections"]}
    assert connections == {
        *((second.url, first.url), (third.url, second.url), (node.url, third.url), (other.url, first.url)),
    }
    assert get(f"{first.url}/counts")["tags"] == {"A": 3}
    node.service.remove_links()
    for service in registries:
        eventually(lambda url=service.url: total(url) == 1, f"one flow at {service.url}")


def test_a_provider_takes_in_nodes_alone(serve: Serve) -> None:
    registry = serve()
    provider = serve(feed=False, connect=registry.url)
    serve({"flows": FLOWS}, connect=registry.url, **NODE)
    serve({"flows": FLOWS[:1]}, connect=provider.url, **NODE)
    eventually(lambda: total(registry.url) == 3, "all at the registry")
    assert total(provider.url) == 1
    registry.service.add_link(provider.url)
    registry.wait_idle(30)
    assert total(provider.url) == 1
    refused = serve(connect=free_urls(1)[0], retry=0, **NODE)
    assert httpx.post(f"{refused.url}/update", json={}).status_code in (401, 422)


def test_silent_nodes_are_offline_then_gone_and_come_back(serve: Serve) -> None:
    registry = serve(offline_after=1.0, ttl=3.0)
    (url,) = free_urls(1)

    def node() -> RunningService:
        return serve({"flows": FLOWS}, url=url, connect=registry.url, retry=-1, **NODE)

    first = node()
    eventually(lambda: total(registry.url) == 2, "the node's flows")
    assert {item["status"] for item in get(f"{registry.url}/flows?q=status=online")["items"]} == {"online"}
    first.stop()
    eventually(lambda: get(f"{registry.url}/flows?q=status=offline")["filtered"] == 2, "offline")
    assert total(registry.url) == 2
    eventually(lambda: total(registry.url) == 0, "gone")
    node()
    eventually(lambda: get(f"{registry.url}/flows?q=status=online")["filtered"] == 2, "back")


def test_a_registry_that_lost_its_cache_learns_all_again(serve: Serve) -> None:
    (url,) = free_urls(1)
    first = serve(url=url)
    serve({"flows": FLOWS}, connect=url, retry=-1, **NODE)
    other = serve(connect=url, retry=-1)
    serve({"flows": FLOWS[:1]}, connect=other.url, retry=-1, **NODE)
    eventually(lambda: total(url) == 3, "all")
    first.stop()
    serve(url=url, cache_reset=True)
    eventually(lambda: total(url) == 3, "all again")


def test_a_registry_that_is_back_asks_its_nodes_to_connect_again(serve: Serve, tmp_path: Path) -> None:
    """Also one that gave it up, and offers something else meanwhile."""
    (url,) = free_urls(1)
    cache = tmp_path / "registry"
    registry = serve(url=url, cache_data=cache)
    node = serve({"flows": FLOWS}, connect=url, retry=0, **NODE)
    node.wait_idle(30)
    assert total(url) == 2
    registry.stop()
    eventually(lambda: node.service.connections()["connections"][0]["state"] == "stopped", "that it gives up")
    serve(url=url, cache_data=cache)
    eventually(lambda: node.service.connections()["connections"][0]["state"] == "connected", "that it is called")


def test_a_node_that_lost_its_cache_is_believed(serve: Serve) -> None:
    """Even when the number of its record begins lower than the one that is known."""
    registry = serve()
    (url,) = free_urls(1)
    node = serve({"flows": FLOWS}, url=url, connect=registry.url, **NODE)
    with node.service._db.write() as db:
        db.execute("INSERT OR REPLACE INTO facts VALUES ('sequence', ?)", (2**50,))
        db.execute("INSERT OR REPLACE INTO facts VALUES ('beat', ?)", (2**50,))
        node.service._nodes.outdate(db)
    node.service.offer()
    node.service.reconnect(None)
    node.wait_idle(30)
    node.stop()
    again = serve({"flows": FLOWS[:1]}, url=url, connect=registry.url, cache_reset=True, **NODE)
    again.wait_idle(30)
    eventually(lambda: total(registry.url) == 1, "what it offers now")


def test_what_was_acknowledged_is_there_after_a_kill(tmp_path: Path) -> None:
    """A registry is killed in the midst of what a node tells it; what it said it had taken, it has when it is back."""
    (url,) = free_urls(1)
    user, taken, chance = Identity.generate(), 0, random.Random(1)
    for _ in range(3):
        process = run_process(tmp_path / "home", url=url, cache_data=tmp_path / "registry.db")
        try:
            eventually(lambda: answers(url), "the registry")
            flows = get(f"{url}/flows")["items"]
            assert not taken or (len(flows) == 1 and int(flows[0]["author"]) >= taken)
            node = Stranger(url, "http://node.example", user)
            assert node.connect().status_code == 200
            killer = threading.Timer(chance.uniform(0.1, 0.6), process.kill)
            killer.start()
            with contextlib.suppress(httpx.TransportError):
                while True:
                    next_one = taken + 1
                    told = node.publish([FlowEntry(key="flow", name="Flow", author=str(next_one))])
                    assert told.json()["missing"] == []
                    taken = next_one
            killer.join()
        finally:
            process.kill()
            process.join()
    assert taken


def test_the_time_in_which_a_registry_was_away_does_not_count(serve: Serve, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    registry = serve(cache_data=cache, offline_after=1.0, ttl=3.0)
    node = serve({"flows": FLOWS}, connect=registry.url, **NODE)
    eventually(lambda: total(registry.url) == 2, "the node's flows")
    node.stop()
    registry.stop()
    with contextlib.closing(sqlite3.connect(cache)) as db, db:
        db.execute("UPDATE nodes SET seen=seen-100")
        db.execute("UPDATE facts SET value=value-100 WHERE name='alive'")
    back = serve(cache_data=cache, offline_after=1.0, ttl=30.0)
    eventually(lambda: get(f"{back.url}/flows?q=status=offline")["filtered"] == 2, "offline, not gone")


def test_flows_of_which_much_is_said_go_over_in_parts(serve: Serve) -> None:
    registry = serve()
    schema = {"properties": {f"field{number}": {"description": "x" * 90} for number in range(200)}}
    flows = [{"name": f"Flow {number}", "input_schema": {**schema, "number": number}} for number in range(250)]
    node = serve({"flows": flows}, connect=registry.url, retry=0, **NODE)
    node.wait_idle(60)
    assert total(registry.url) == 250
    pulling = serve(connect=registry.url, retry=0)
    pulling.wait_idle(60)
    assert total(pulling.url) == 250


def test_a_cache_has_one_service(serve: Serve, tmp_path: Path) -> None:
    service = serve({"flows": FLOWS}, cache_data=tmp_path / "cache")
    with pytest.raises(ConfigurationError, match="another service"):
        serve(cache_data=tmp_path / "cache", cache_reset=True)
    assert total(service.url) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flows: [{name: 3}]", "flows"),
        ("flows: [{endpont: x}]", "endpont is not known.*A flow has entry, endpoint"),
        ("flows: [{}]", "no entry, endpoint or name"),
        ("flows: [{endpoint: 'a:b'}]", "not valid"),
        ("connect: [nowhere]", "URL"),
        ("colour: red", "colour"),
        ("- 1\n- 2", "flows"),
        ("a: [", "not YAML"),
        ("connect: http://localhost:99999", "URL"),
    ],
)
def test_loaders_that_are_wrong(serve: Serve, tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=said):
        serve(str(path))


def test_a_listed_endpoint_that_is_not_served_is_told(
    serve: Serve, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Home(home).create_user("alice")
    with connect("alice") as alice:
        serve_flow(alice, Reverser, "reverse")
    for endpoint in ("reverse", "revers"):
        assert not caplog.messages
        assert total(serve({"user": "alice", "flows": [{"endpoint": endpoint}]}, **NODE).url) == 1
    assert caplog.messages == ["User alice does not serve revers, which this node lists; he serves reverse."]


def test_arguments_that_are_wrong(serve: Serve) -> None:
    for said in ({"colour": "red"}, {"heartbeat": 0}, {"pp": 3}, {"retry": -2}, {"connect": ["x"] * 3}):
        with pytest.raises(ConfigurationError):
            serve(**said)
    with pytest.raises(ConfigurationError, match=r"^The arguments .* url: 'localhost:1' is no URL .*[^.]\.$"):
        serve(url="localhost:1")
    with pytest.raises(ConfigurationError, match="One is DEBUG"):
        run_service(url="http://localhost:0", screen_level="loud")


def test_a_loader_is_a_file_a_function_or_a_store(serve: Serve, home: Path, tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_text(
        "organization: Acme\nflows:\n  - entry: CounterFlowModule.CounterFlow\n    endpoint: counter\n    tags: [x]\n"
    )
    (item,) = get(f"{serve(str(path), **NODE).url}/flows")["items"]
    assert (item["organization"], item["tags"], item["flow_endpoint"]) == ("Acme", ["x"], "counter")
    assert item["description"]
    assert total(serve("tests.integration.test_registry_truth:listed_flows", **NODE).url) == 2
    alice = Home(home).create_user("alice")
    node = serve("store:alice", **NODE)
    assert (total(node.url), node.user_id) == (0, alice.user_id)


def listed_flows() -> Any:
    """What a loader gives."""
    return json.loads(json.dumps(FLOWS))


def test_what_is_asked_wrongly_is_told(serve: Serve) -> None:
    url = serve({"flows": FLOWS}).url
    for path, status in (
        *(("/flows?pp=0", 422), ("/flows?pp=1001", 422), ("/flows?p=-1", 422), ("/flows?p=x", 422), ("/nothing", 404)),
        *(
            ("/flows?by=size", 400),
            ("/flows?q=size=3", 400),
            (f"/flows?q={'x' * 1001}", 422),
            ("/flows?p=1000000000", 200),
        ),
    ):
        answer = httpx.get(f"{url}{path}")
        assert answer.status_code == status, path
        assert status == 200 or set(answer.json()["error"]) == {"code", "message", "hint"}
    assert "/openapi.json" in httpx.get(f"{url}/nothing").json()["error"]["hint"]
    assert get(f"{url}/health") == {"status": "ok"}
    assert {"/flows", "/flows/{flow_id}", "/connect", "/map"} <= set(get(f"{url}/openapi.json")["paths"])
