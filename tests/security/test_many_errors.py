"""What is wrong in so many places that telling of it would take the memory, and what would be told of at any length."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from coflows.errors import CoflowsError, InputInvalidError, RegistryUnavailableError
from coflows.flows.models import check_input
from coflows.model.calls import Call
from coflows.model.closed import problems
from coflows.model.messages import ReplyAddress
from coflows.model.wire import DispatchPayload, DoorPayload, Fetch, FetchItem, read_payload
from coflows.registry.dialing import Dialer
from coflows.registry.page import Cursor, Page, Update
from coflows.workflow.colonies.function_spec import read_spec
from tests.registry_world import Serve

MANY = 100_000
ID = "0" * 32
COMMAND = "\x1b[2J\nCRITICAL all is lost\x9b2J\u202e"


def wrong(keys: int, key: str = "!{:x}") -> dict[Any, Any]:
    return {key.format(number): 0 for number in range(keys)}


FETCH = Fetch(request_id=ID, session=ID, items=[FetchItem(key="a", flow_endpoint="f")], deadline=0.0).to_dict()
ITEM = FETCH["items"][0]
BYTES = {b"%x" % number: 0 for number in range(MANY)}
FLOOD: dict[str, tuple[Any, dict[str, Any]]] = {
    "unknown fields": (DispatchPayload, {"kind": "recall", **wrong(MANY)}),
    "grants": (DoorPayload, {**FETCH, "grants": wrong(MANY)}),
    "unknown fields of items": (DoorPayload, {**FETCH, "items": [{**ITEM, **wrong(MANY // 500)}] * 500}),
    "unknown fields of links": (DoorPayload, {**FETCH, "chain": [wrong(MANY // 60)] * 60}),
    "bytes as keys": (DoorPayload, {**FETCH, "items": [{**ITEM, "config_overrides": BYTES}]}),
    "bytes as keys of a state": (DoorPayload, {**FETCH, "items": [{**ITEM, "initial_state": BYTES}]}),
    "entries": (Update, {"page": Page(log="", after=Cursor(), upto=Cursor()).model_dump(), "entries": wrong(MANY)}),
    "offers": (Update, {"page": {"offers": [{"beat": wrong(MANY // 500)}] * 500}}),
}


@pytest.mark.parametrize("kind", FLOOD)
def test_a_payload_in_which_very_much_is_wrong(kind: str) -> None:
    """A megabyte of wrong keys was half a gigabyte of errors, and took three seconds, for one sender whom nobody knows;
    a registry was kept busy for eight."""
    model, value = FLOOD[kind]
    adapter: TypeAdapter[Any] = TypeAdapter(model)
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError) as caught:
            adapter.validate_python(value)
        assert len(problems(caught.value)) <= 1000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * 2**20


class Numbers(BaseModel):
    model_config = ConfigDict(extra="forbid")
    of: list[int] = []


@pytest.mark.parametrize("data", [wrong(MANY), {"of": ["x"] * MANY}], ids=["fields", "elements"])
def test_a_message_in_which_very_much_does_not_fit(data: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InputInvalidError, match="100000 things in it are wrong"):
            check_input(Numbers, data, "numbers")
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "read",
    [
        lambda: Call.from_dict({"kind": "call", "flow_id": ID, "created_at": COMMAND}),
        lambda: Call.from_dict({"kind": "call", "flow_id": COMMAND}),
        lambda: Call.from_dict({"flow_id": ID, COMMAND: 1}),
        lambda: ReplyAddress.proven({"mode": COMMAND}, ID, ID),
        lambda: ReplyAddress.proven({"mode": "push", "partition": COMMAND}, ID, ID),
        lambda: read_payload(TypeAdapter(DispatchPayload), {"kind": COMMAND * 10_000}),
        lambda: read_payload(TypeAdapter(DoorPayload), {**FETCH, COMMAND: 1}),
        lambda: read_spec({"funcname": COMMAND, "nodename": COMMAND}),
        lambda: read_spec({"funcname": "f", "nodename": COMMAND, "executortype": COMMAND}),
        lambda: read_spec({"funcname": "f", "nodename": "f", COMMAND: 1}),
        lambda: read_spec({"funcname": "f", "nodename": "f", "priority": COMMAND}),
    ],
)
def test_a_value_that_would_write_into_the_log(read: Callable[[], object]) -> None:
    """It is a line of the log, and the reason of a dead letter: of any length it was, and with whatever in it."""
    with pytest.raises(CoflowsError) as caught:
        read()
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000


def test_a_registry_that_answers_with_very_many_elements() -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                self.wfile.write(b"[" + b"[]," * 3_000_000 + b"0]")
            except OSError:
                return

        def log_message(self, format: str, *args: Any) -> None:
            return

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with Dialer(30, plain=True) as dialer, pytest.raises(RegistryUnavailableError, match="without end"):
            dialer.request("GET", f"http://localhost:{server.server_port}", "/flows")
        server.shutdown()


def test_a_body_of_very_many_elements(serve: Serve) -> None:
    """Four megabytes of it were a hundred of memory, for whoever asks."""
    url = serve(registry=True).url
    content = b'{"digests":[' + b"[]," * 600_000 + b"0]}"
    answer = httpx.post(f"{url}/entries", content=content, headers={"content-type": "application/json"}, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "message_too_large")
